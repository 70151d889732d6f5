"""The twin on its own; that it agrees with the real thing is in test_map.py."""

import os

import pytest
from vmm_memory import InvalidGuestAddressError, ReadOnlyRegionError, UnexpectedEofError
from vmm_memory.testing import ByteArrayMemory


def test_ranges_of_any_size_and_read_only_ones():
    """Odd sizes, a read-only range in the middle: writes stop before it, reads run through."""
    memory = ByteArrayMemory([(0, 3), (3, 5), (8, 2)], read_only=[3])
    memory.write(0, b"abc")
    assert memory.read(0, 10) == b"abc" + bytes(7)
    with pytest.raises(ReadOnlyRegionError):
        memory.write(2, b"xy")
    assert memory.read(2, 1) == b"c"
    assert memory.dirty == {(0, 0)}
    assert list(memory.regions()) == [(0, 3), (3, 5), (8, 2)]


def test_what_it_cannot_do():
    """Overlapping ranges and tables for C."""
    with pytest.raises(ValueError, match=r"ranges overlap: 0x0 \+ 0x10 and 0x8"):
        ByteArrayMemory([(0, 16), (8, 16)])
    with pytest.raises(NotImplementedError, match="use GuestMemoryMmap"):
        ByteArrayMemory([]).access_map()


def test_empty_slice_needs_a_mapped_address():
    """As in C: a window of nothing still has to be somewhere."""
    memory = ByteArrayMemory([(0x10, 16)])
    assert len(memory.get_slice(0x1F, 0)) == 0
    with pytest.raises(InvalidGuestAddressError):
        memory.get_slice(0x20, 0)


def test_its_transfers():
    """The end of a file, and one system call at a time, as the real thing has them."""
    memory, fd = ByteArrayMemory([(0, 100)]), os.memfd_create("file")
    try:
        os.write(fd, b"12345")
        os.lseek(fd, 0, os.SEEK_SET)
        assert memory.scatter_from_fd([(0, 2), (50, 3)], fd) == 5
        assert memory.gather([(0, 3), (50, 3)]) == b"12\x00345"
        with pytest.raises(UnexpectedEofError, match="after 0x1 of 0x4 bytes"):
            memory.scatter_from_fd([(0, 4)], fd, offset=4)
        assert memory.scatter_from_fd([(0, 4)], fd, short=True) == 0
        assert memory.gather_to_fd([(50, 3)], fd) == 3
        assert memory.gather_to_fd([(50, 3)], fd, offset=0, short=True) == 3
        assert os.pread(fd, 100, 0) == b"34545345"
    finally:
        os.close(fd)


def test_arguments_it_refuses():
    """As the real thing does."""
    memory = ByteArrayMemory([(0, 100)])
    with pytest.raises(ValueError, match=r"^ranges have 0x[0-9a-f]+ bytes together, the buffer has 0x5$"):
        memory.scatter([(0, 4)], b"12345")
    with pytest.raises(ValueError, match="data has 0 bytes"):
        memory.find(0, 10, b"")
    with pytest.raises(ValueError, match="size is 3"):
        memory.fetch_or(0, 3, 1)
    with pytest.raises(InvalidGuestAddressError, match="a slice lies in one region"):
        ByteArrayMemory([(0, 4), (4, 4)]).get_slice(2, 4)
    assert not memory.check_range(99, 2)
