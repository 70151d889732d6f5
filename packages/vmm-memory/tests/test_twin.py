"""The twin on its own; that it agrees with the real thing is in test_map.py."""

import pytest
from vmm_memory import InvalidGuestAddressError, ReadOnlyRegionError
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
