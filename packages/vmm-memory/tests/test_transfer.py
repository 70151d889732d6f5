"""Files, pipes and sockets to and from guest memory."""

import errno
import os
import signal
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_memory import (
    FileOffset,
    GuestMemoryMmap,
    GuestRegionMmap,
    PartialBufferError,
    ReadOnlyRegionError,
    TransferError,
    UnexpectedEofError,
)
from vmm_memory.testing import guarded_region

PAGE = 4096
BASE = 0x10000


@given(data=st.data(), pieces=st.integers(1, 100))
def test_round_trip_through_a_file(data, pieces):
    """Any range over many adjacent regions (more than one iovec holds) comes back as it was."""
    memory = GuestMemoryMmap([guarded_region(BASE + i * PAGE, PAGE) for i in range(pieces)])
    start = data.draw(st.integers(0, pieces * PAGE))
    size = data.draw(st.integers(0, pieces * PAGE - start))
    at = data.draw(st.integers(0, 5000))
    content = os.urandom(size)
    fd = os.memfd_create("content")
    try:
        os.pwrite(fd, content, at)
        assert memory.read_from_fd(BASE + start, fd, size, offset=at) == size
        assert memory.read(BASE + start, size) == content
        dirty = {
            page
            for addr, length in memory.take_dirty()
            for page in range(addr // PAGE, (addr + length) // PAGE)
        }
        assert dirty == (
            {*range((BASE + start) // PAGE, (BASE + start + size - 1) // PAGE + 1)} if size else set()
        )
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)
        assert memory.write_to_fd(BASE + start, fd, size) == size
        assert os.pread(fd, size + 1, 0) == content
        assert memory.take_dirty() == ()
    finally:
        os.close(fd)


def test_short_reads_are_continued(two_regions):
    """A stream that trickles fills the range in order."""
    ours, theirs = socket.socketpair()
    content = os.urandom(6 * PAGE)

    def trickle():
        for start in range(0, len(content), 1000):
            theirs.sendall(content[start : start + 1000])

    with ours, theirs:
        sender = threading.Thread(target=trickle)
        sender.start()
        two_regions.read_from_fd(BASE + 100, ours.fileno(), len(content))
        sender.join()
    assert two_regions.read(BASE + 100, len(content)) == content


def test_short_writes_are_continued(two_regions):
    """A pipe smaller than the range takes all of it, piece by piece."""
    content = os.urandom(8 * PAGE)
    two_regions.write(BASE, content)
    reader, writer = os.pipe()
    got = bytearray()

    def drain():
        while piece := os.read(reader, 777):
            got.extend(piece)

    collector = threading.Thread(target=drain)
    collector.start()
    two_regions.write_to_fd(BASE, writer, len(content))
    os.close(writer)
    collector.join()
    os.close(reader)
    assert got == content


def test_end_of_file_says_how_far(two_regions):
    """What was there has arrived and is marked; the error counts it."""
    fd = os.memfd_create("short")
    os.write(fd, b"x" * 5000)
    with pytest.raises(UnexpectedEofError, match="end of file after 0x1388 of 0x4000 bytes") as caught:
        two_regions.read_from_fd(BASE, fd, 4 * PAGE, offset=0)
    os.close(fd)
    assert (caught.value.expected, caught.value.completed) == (4 * PAGE, 5000)
    assert two_regions.read(BASE, 5001) == b"x" * 5000 + b"\0"
    assert two_regions.take_dirty() == ((BASE, 2 * PAGE),)


def test_signals_are_handled_in_the_middle(two_regions):
    """A signal during a blocking read runs its Python handler, and the read goes on."""
    ours, theirs = socket.socketpair()
    handled = []

    def on_signal(number, _):
        handled.append(number)
        theirs.sendall(b"after signal")

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        theirs.sendall(b"first ")
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        killer.start()
        two_regions.read_from_fd(BASE, ours.fileno(), 18)
        killer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
        ours.close()
        theirs.close()
    assert handled == [signal.SIGUSR1]
    assert two_regions.read(BASE, 18) == b"first after signal"


def test_errors_carry_errno_and_progress(two_regions):
    """A bad descriptor, and a non-blocking one that runs dry."""
    reader, writer = os.pipe()
    with pytest.raises(
        TransferError, match=f"write of fd {reader}: Bad file descriptor after 0x0 of 0x4 bytes"
    ):
        two_regions.write_to_fd(BASE, reader, 4)
    os.write(writer, b"12345")
    os.set_blocking(reader, False)
    with pytest.raises(TransferError) as caught:
        two_regions.read_from_fd(BASE, reader, 10)
    os.close(reader)
    os.close(writer)
    assert (caught.value.errno, caught.value.completed) == (errno.EAGAIN, 5)
    assert two_regions.read(BASE, 6) == b"12345\0"


def test_range_is_checked_before_the_file_is_touched(two_regions, tmp_path):
    """An impossible range consumes nothing from the stream."""
    path = tmp_path / "file"
    path.write_bytes(b"y" * (2 * PAGE))
    with path.open("rb") as file:
        with pytest.raises(PartialBufferError):
            two_regions.read_from_fd(0x40000, file.fileno(), 2 * PAGE)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
        with pytest.raises(ValueError, match="file offset is -5"):
            two_regions.read_from_fd(0x40000, file.fileno(), 1, offset=-5)
        rom = GuestMemoryMmap([GuestRegionMmap.from_file(0, PAGE, FileOffset(file.fileno()), read_only=True)])
        with pytest.raises(ReadOnlyRegionError):
            rom.read_from_fd(0, file.fileno(), 1)


def test_truncated_backing_is_an_error_and_not_a_signal(tmp_path):
    """read(2) into pages whose file was cut off reports EFAULT."""
    path = tmp_path / "backing"
    path.write_bytes(bytes(2 * PAGE))
    source = os.memfd_create("source")
    os.write(source, bytes(2 * PAGE))
    with path.open("r+b") as file:
        memory = GuestMemoryMmap([GuestRegionMmap.from_file(0, 2 * PAGE, FileOffset(file.fileno()))])
        os.ftruncate(file.fileno(), 0)
        with pytest.raises(TransferError) as caught:
            memory.read_from_fd(0, source, 2 * PAGE, offset=0)
    os.close(source)
    assert caught.value.errno == errno.EFAULT
