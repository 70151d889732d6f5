"""Agent and relay against each other, over socket pairs and without a host."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import vmm_testhost._agent as agent_module
from vmm_testhost._relay import Relay

AGENT = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("agent", sys.argv[1])
agent = importlib.util.module_from_spec(spec)
spec.loader.exec_module(agent)
ports = {"io": int(sys.argv[2]), "stdin": int(sys.argv[3])}
def open_port(name):
    os.set_blocking(ports[name], False)
    os.set_inheritable(ports[name], False)
    return ports[name]
agent.open_port = open_port
it = agent.Agent(sys.argv[4:], os.getcwd(), dict(os.environ), b"", True)
it.loop()
agent.send(it.io, b"x", bytes([it.status & 255]))
"""


@pytest.fixture
def wired(request):
    """A function that runs a command under an agent process and gives its relay and its output."""

    def start(argv, stdin=b"", on_ready=lambda: None):
        io, inner_io = socket.socketpair()
        port, inner_port = socket.socketpair()
        inner = (inner_io.fileno(), inner_port.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, agent_module.__file__, *map(str, inner), *argv], pass_fds=inner
        )
        inner_io.close()
        inner_port.close()
        output = {b"o": b"", b"e": b""}

        def deliver(kind, data):
            output[kind] += data

        relay = Relay(SimpleNamespace(io=io, stdin=port), stdin=stdin, deliver=deliver, on_ready=on_ready)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        request.addfinalizer(relay.close)
        request.addfinalizer(io.close)
        request.addfinalizer(port.close)
        return relay, output

    return start


def test_bytes_survive_both_ways(wired):
    """A megabyte of every byte value comes back unchanged, then the status."""
    sent = os.urandom(1 << 20)
    relay, output = wired(["cat"], sent)
    assert relay.run(time.monotonic() + 50)
    assert relay.status == 0
    assert output == {b"o": sent, b"e": b""}


def test_streams_stay_apart(wired):
    """Stdout and stderr arrive separately, and the exit status is the command's."""
    relay, output = wired(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert relay.run(time.monotonic() + 50)
    assert (relay.status, output) == (7, {b"o": b"out\n", b"e": b"err\n"})


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["/no/such"], 127), (["/"], 126), (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM)],
)
def test_statuses_are_a_shells(wired, argv, status):
    """Not found, not executable and killed give the statuses a shell gives."""
    relay, _ = wired(argv)
    assert relay.run(time.monotonic() + 50)
    assert relay.status == status


def test_command_that_does_not_read_gets_its_interrupt(wired):
    """Megabytes of unread stdin do not hold up a Ctrl-C."""
    relay, output = wired(
        ["sh", "-c", "trap 'echo bye; exit 9' INT; echo up; while :; do sleep 0.05; done"], bytes(4 << 20)
    )
    while b"up" not in output[b"o"]:
        relay.run(time.monotonic() + 0.1)
    relay.notify(signal.SIGINT)
    assert relay.run(time.monotonic() + 50)
    assert (relay.status, output[b"o"]) == (9, b"up\nbye\n")


def test_stop_gives_up_after_the_grace(wired):
    """A command that ignores the signal is given up after the grace, with the signal that asked for it."""
    relay, output = wired(["sh", "-c", "trap '' TERM; echo up; exec sleep 99"])
    while b"up" not in output[b"o"]:
        relay.run(time.monotonic() + 0.1)
    relay.stop(signal.SIGTERM, grace=0.2)
    assert relay.run()
    assert (relay.status, relay.killed_by) == (None, signal.SIGTERM)


def test_sigterm_reaches_the_command_as_itself(wired):
    """A command told to terminate ends its own way."""
    relay, output = wired(["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"])
    while b"up" not in output[b"o"]:
        relay.run(time.monotonic() + 0.1)
    relay.stop(signal.SIGTERM)
    assert relay.run()
    assert (relay.status, relay.killed_by) == (7, None)


def test_time_limit_returns_false(wired):
    """run() comes back at its limit with the command still there."""
    relay, _ = wired(["sleep", "99"])
    assert not relay.run(time.monotonic() + 0.5)
    assert relay.status is None


def test_broken_pipe_ends_a_command(wired):
    """SIGPIPE has its default action: Python's habit of ignoring it is not inherited."""
    relay, output = wired(["sh", "-c", "yes | head -1; grep SigIgn /proc/self/status"])
    assert relay.run(time.monotonic() + 50)
    assert output[b"o"].startswith(b"y\n")
    assert int(output[b"o"].split()[-1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_the_pulse_goes_to_every_cpu(monkeypatch):
    """The agent is on each in turn, and may then run where it might before."""
    before, been, move = os.sched_getaffinity(0), [], os.sched_setaffinity

    def watched(pid, cpus):
        move(pid, cpus)
        been.append(os.sched_getaffinity(0))

    monkeypatch.setattr(os, "sched_setaffinity", watched)
    agent_module.interrupt_all()
    assert been == ([{cpu} for cpu in before] + [before] if len(before) > 1 else [])
    assert os.sched_getaffinity(0) == before
