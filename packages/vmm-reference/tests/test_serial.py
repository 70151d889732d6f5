"""Every end of the serial console, on real terminals, pipes, sockets and files."""

import logging
import os
import stat
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import EventManager, Serial16550
from vm_device.testing import FakeInterrupt
from vmm_reference import ConfigError, SerialConfig, SerialMode
from vmm_reference._serial import FdBackend, open_backend
from vmm_reference._serial_input import EscapeFilter


class Port:
    """A receiver with room for so many bytes at a time."""

    def __init__(self, room=1 << 30):
        self.room, self.got = room, b""

    def enqueue(self, data):
        """Take what fits."""
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)


def wait(condition, seconds=60.0):
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def no_quit():
    """Fail: nobody typed Ctrl-A x."""
    raise AssertionError("quit")


def open_mode(mode, path=None):
    """Open a backend."""
    return open_backend(SerialConfig(mode, path), no_quit)


@pytest.fixture
def loop():
    """A running event loop."""
    with EventManager("test") as events:
        events.start()
        yield events


@pytest.fixture
def pipe():
    """A pipe, (to read, to write)."""
    ends = [os.fdopen(fd, mode, buffering=0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
    yield ends
    for end in ends:
        end.close()


# -- Ctrl-A


@given(st.binary())
def test_escape_filter_passes_what_is_no_command(data):
    """Everything but Ctrl-A x reaches the guest; a doubled Ctrl-A is one."""
    typed = data.replace(b"\1", b"\1\1")
    assert EscapeFilter(no_quit).feed(typed) == data


@given(st.lists(st.binary(max_size=3)), st.binary(max_size=6))
def test_escape_filter_does_not_care_how_bytes_arrive(parts, rest):
    """One byte at a time or all at once gives the same bytes and the same quits."""
    whole = b"".join(parts) + rest + b"\1x" + rest
    quits = [[], []]
    at_once = EscapeFilter(lambda: quits[0].append(1))
    singly = EscapeFilter(lambda: quits[1].append(1))
    together = at_once.feed(whole)
    assert together == b"".join(singly.feed(bytes([byte])) for byte in whole)
    assert quits[0] == quits[1]


def test_escape_filter_commands():
    """Ctrl-A x quits in either case, another key after Ctrl-A goes through with it."""
    quits = []
    keys = EscapeFilter(lambda: quits.append(1))
    assert keys.feed(b"a\1xb\1Xc\1?d") == b"abc\1?d"
    assert len(quits) == 2


# -- off, null, file


def test_off_is_no_port_and_null_is_silence(loop):
    """Off has no backend; null takes everything and gives nothing."""
    assert open_mode(SerialMode.OFF) is None
    null = open_mode(SerialMode.NULL)
    null.attach(loop, Port())
    null.write(b"x" * 10_000_000)
    null.resume_input()
    null.detach()
    null.hang_up()
    null.close()


def test_file(tmp_path, loop):
    """A file is truncated, gets every byte, and gives no input."""
    path = tmp_path / "console"
    path.write_bytes(b"old" * 1000)
    backend = open_mode(SerialMode.FILE, path)
    backend.attach(loop, Port())
    backend.write(b"booting\r\n" * 5000)
    assert path.read_bytes() == b"booting\r\n" * 5000
    backend.detach()
    backend.close()


def test_file_that_is_a_fifo(tmp_path):
    """A FIFO without a reader is opened at once, and read later."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    backend = open_mode(SerialMode.FILE, fifo)
    backend.write(b"hello")
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        assert reader.read(10) == b"hello"
    backend.close()


def test_full_disk_is_told_once(caplog):
    """ENOSPC loses output with one warning; the guest goes on."""
    with open("/dev/full", "wb", buffering=0) as full, caplog.at_level(logging.WARNING):
        backend = FdBackend(full.fileno(), None)
        backend.write(b"x")
        backend.write(b"y")
        backend.close()
    assert [r.getMessage() for r in caplog.records] == ["serial output is lost: No space left on device"]


@pytest.mark.parametrize(
    ("mode", "path", "message"),
    [
        (SerialMode.FILE, "no/such", "--serial file: {}: No such file or directory"),
        (SerialMode.FILE, "", "--serial file: {}: Is a directory"),
        (
            SerialMode.SOCKET,
            "no/such",
            "--serial socket: {}: No such file or directory; choose a path that is free",
        ),
        (
            SerialMode.SOCKET,
            "taken",
            "--serial socket: {}: Address already in use; choose a path that is free",
        ),
        (
            SerialMode.SOCKET,
            "x" * 200,
            "--serial socket: {}: AF_UNIX path too long; choose a path that is free",
        ),
    ],
)
def test_paths_that_cannot_be(tmp_path, mode, path, message):
    """The option, the path, the reason; nothing is left open."""
    (tmp_path / "taken").touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as caught:
        open_mode(mode, tmp_path / path)
    assert str(caught.value) == message.format(tmp_path / path)
    assert len(os.listdir("/proc/self/fd")) == before


# -- pipes


def test_pipe_holds_the_guest_back(pipe, loop):
    """A slow reader of a pipe gets every byte: the writer waits."""
    read, write = pipe
    backend = FdBackend(write.fileno(), None)
    data = os.urandom(1 << 18)
    thread = threading.Thread(target=backend.write, args=(data,))
    thread.start()
    got = b""
    while len(got) < len(data):
        got += read.read(5000)
    thread.join(60)
    assert got == data
    backend.close()


def test_hang_up_frees_a_writer(pipe, caplog):
    """A write to a full pipe that nobody reads returns after hang_up."""
    backend = FdBackend(pipe[1].fileno(), None)
    thread = threading.Thread(target=backend.write, args=(bytes(1 << 20),))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    backend.hang_up()
    thread.join(60)
    assert not thread.is_alive()
    assert [record.getMessage() for record in caplog.records] == ["serial output is lost: nobody reads it"]
    backend.close()


def test_reader_that_goes_away(pipe, caplog):
    """A closed pipe loses output with one warning, and no exception reaches the guest's thread."""
    backend = FdBackend(pipe[1].fileno(), None)
    pipe[0].close()
    backend.write(b"x" * 10_000)
    backend.write(b"y")
    assert [record.getMessage() for record in caplog.records] == ["serial output is lost: Broken pipe"]
    backend.close()


def test_input_waits_for_room(pipe, loop):
    """What the port does not take is offered again on resume_input, in order, none lost."""
    read, write = pipe
    null = os.open(os.devnull, os.O_WRONLY)
    backend, port = FdBackend(null, read.fileno()), Port(room=10)
    backend.attach(loop, port)
    write.write(bytes(range(100)))
    wait(lambda: len(port.got) == 10)
    while len(port.got) < 100:
        target = min(len(port.got) + 7, 100)
        port.room = 7
        backend.resume_input()
        wait(lambda t=target: len(port.got) == t)
    assert port.got == bytes(range(100))
    write.close()  # end of input is the end of it, not a busy loop
    backend.detach()
    backend.close()
    os.close(null)


def test_input_to_a_port_whose_output_is_stuck(pipe, loop):
    """Typing while output waits for its reader must not keep the session from ending.

    The UART calls out under its lock and enqueue takes the same one, so the event loop waits for the
    reader as well; hang_up frees both, and detach returns.
    """
    _, write = pipe
    backend = FdBackend(write.fileno(), typed := os.eventfd(0, os.EFD_NONBLOCK))
    uart = Serial16550(backend.write, FakeInterrupt())
    backend.attach(loop, uart)
    writer = threading.Thread(target=lambda: [uart.write(0, 1, 0x41) for _ in range(1 << 17)])
    writer.start()
    time.sleep(0.3)  # the pipe is full, the lock held
    os.eventfd_write(typed, 1)
    time.sleep(0.05)
    giver = threading.Timer(0.2, backend.hang_up)
    giver.start()
    backend.detach()
    writer.join(60)
    assert not writer.is_alive()
    giver.join()
    backend.close()
    os.close(typed)


# -- pty


def test_pty(loop, capsys):
    """Its path is told on stderr; it is raw both ways; users may come and go."""
    backend, port = open_mode(SerialMode.PTY), Port()
    assert capsys.readouterr().err == f"vmm: serial console at {backend.path}\n"
    backend.attach(loop, port)
    for _ in range(3):
        with open(os.open(backend.path, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) as user:
            backend.write(b"login\n: \x03")
            assert user.read(100) == b"login\n: \x03"
            user.write(b"root\n\x03\x04")
            wait(lambda: port.got.endswith(b"root\n\x03\x04"))
    backend.detach()
    path = backend.path
    backend.close()
    assert not path.exists() or not stat.S_ISREG(path.stat().st_mode)


def test_pty_that_nobody_reads(loop, caplog):
    """Output beyond its buffer is dropped, said once, and never waits."""
    backend = open_mode(SerialMode.PTY)
    start = time.monotonic()
    for _ in range(200):
        backend.write(b"x" * 4096)
    assert time.monotonic() - start < 30
    assert [record.getMessage() for record in caplog.records] == ["serial output is lost: nobody reads it"]
    backend.close()
