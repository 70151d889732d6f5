"""The outer half of the relay by itself, on real sockets."""

import contextlib
import socket
import threading
import time
from types import SimpleNamespace

from vmm_testhost._relay import Relay


def test_a_running_host_gets_an_interrupt_now_and_then():
    """Frames without meaning arrive while nothing else does, and none before the agent reads."""
    io, agent = socket.socketpair()
    with (
        contextlib.closing(Relay(SimpleNamespace(io=io, stdin=None), stdin=None, deliver=print)) as relay,
        io,
    ):
        thread = threading.Thread(target=relay.run)
        thread.start()
        with agent:
            agent.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                assert agent.recv(5) == b"never"
            agent.settimeout(30)
            agent.sendall(b"r" + bytes(4))
            assert [agent.recv(5, socket.MSG_WAITALL) for _ in range(3)] == [b"n" + bytes(4)] * 3
            agent.sendall(b"x" + (1).to_bytes(4, "little") + b"\x07")
            thread.join(30)
        assert relay.status == 7


def test_a_host_that_reads_nothing_does_not_hold_us_up():
    """With its socket full, time limits still hold."""
    io, agent = socket.socketpair()
    with (
        agent,
        io,
        contextlib.closing(Relay(SimpleNamespace(io=io, stdin=None), stdin=None, deliver=print)) as relay,
    ):
        agent.sendall(b"r" + bytes(4))
        io.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                io.send(bytes(4096))
        io.setblocking(True)
        relay.ready = True
        assert not relay.run(until=time.monotonic() + 0.5)
