"""Transmitted bytes: batches, errors, short writes."""

import io
import threading

from vm_device import EventManager, Serial16550
from vm_device.testing import FakeInterrupt


def make(**kwargs):
    """A UART writing to a list of chunks."""
    out = []
    return Serial16550(out.append, FakeInterrupt(), **kwargs), out


def put(uart, *pairs):
    """Write (register, value) pairs."""
    for register, value in pairs:
        uart.write(register, 1, value)


def test_batched_output():
    """With `defer`, a line is one write and the rest waits for a flush that is asked for once."""
    pending = []
    uart, out = make(defer=pending.append)
    for char in b"one\ntwo":
        put(uart, (0, char))
    assert out == [b"one\n"]
    assert len(pending) == 1, "one deferred flush serves any number of lines"
    pending.pop()()
    assert out == [b"one\n", b"two"]
    put(uart, (0, 0x21))
    pending.pop()()
    assert out.pop() == b"!"
    for _ in range(2500):
        put(uart, (0, 0x2E))
    assert [len(chunk) for chunk in out[2:]] == [1024, 1024]


def test_output_errors_do_not_reach_the_guest(caplog):
    """A broken pipe costs bytes, is logged once and counted; the guest still gets its THRE interrupt."""

    def broken(data):
        raise BrokenPipeError("gone")

    line = FakeInterrupt()
    uart = Serial16550(broken, line)
    put(uart, (1, 2), (0, 65), (0, 66))
    assert uart.tx_lost == 2
    assert line.edges == 3
    assert len(caplog.records) == 1


def test_output_to_files_and_short_writes():
    """A BinaryIO works as `out`, and a raw file that writes less than it is given gets the rest."""
    sink = io.BytesIO()
    put(Serial16550(sink, FakeInterrupt()), (0, 65))
    assert sink.getvalue() == b"A"
    got = bytearray()

    def stingy(data):
        got.append(data[0])
        return 1

    pending = []
    uart = Serial16550(stingy, FakeInterrupt(), defer=pending.append)
    put(uart, *((0, char) for char in b"hello"))
    uart.flush()
    assert got == b"hello"
    stuck = Serial16550(lambda data: 0, FakeInterrupt())
    put(stuck, (0, 65))
    assert stuck.tx_lost == 1


def test_a_prompt_without_newline_appears():
    """With an event loop behind `defer`, an unfinished line reaches `out` in one piece soon after."""
    out, arrived = [], threading.Event()

    def show(data):
        out.append(data)
        arrived.set()

    with EventManager() as events:
        uart = Serial16550(show, FakeInterrupt(), defer=lambda flush: events.call_later(0.001, flush))
        put(uart, *((0, char) for char in b"login: "))
        events.start()
        assert arrived.wait(60)
    assert out == [b"login: "]
