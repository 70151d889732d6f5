"""Zero-copy slices: lifetime and the dirty rule."""

import gc

import cffi
import pytest
from vmm_memory import ClosedError, GuestMemoryMmap, InvalidGuestAddressError, RegionBusyError
from vmm_memory.testing import guarded_region

PAGE = 4096


def is_mapped(address):
    """Does some mapping of this process begin at the address?"""
    with open("/proc/self/maps") as maps:
        return any(line.startswith(f"{address:x}-") for line in maps)


def test_no_copy(two_regions):
    """The slice and the map see one memory."""
    with two_regions.get_slice(0x10000, 16, write=True) as window:
        window.view[:4] = b"abcd"
        assert two_regions.read(0x10000, 4) == b"abcd"
        two_regions.write(0x10004, b"efgh")
        assert bytes(window.view[4:8]) == b"efgh"
        assert (window.address, len(window), window.writable) == (0x10000, 16, True)


def test_view_keeps_memory_after_everything_else_is_gone():
    """A plain memoryview cut from a slice keeps the pages mapped; the last one lets go."""
    region = guarded_region(0, 2 * PAGE)
    host = region.host_address
    memory = GuestMemoryMmap([region])
    memory.write(PAGE, b"still here")
    view = memory.get_slice(PAGE, 64).view
    part = view[6:10]
    del region, memory, view
    gc.collect()
    assert is_mapped(host)
    assert bytes(part) == b"here"
    del part
    gc.collect()
    assert not is_mapped(host)


def test_write_slice_marks_when_closed(two_regions):
    """Nothing is marked while it is open, all of it when it is closed."""
    window = two_regions.get_slice(0x10000 + PAGE - 1, 2, write=True)
    window.view[0] = 1
    assert two_regions.take_dirty() == ()
    window.close()
    assert two_regions.take_dirty() == ((0x10000, 2 * PAGE),)


def test_write_slice_marks_when_dropped(two_regions):
    """Forgetting to close loses no page."""
    window = two_regions.get_slice(0x10000, 1, write=True)
    del window
    gc.collect()
    assert two_regions.take_dirty() == ((0x10000, PAGE),)


def test_explicit_marks(two_regions):
    """A long-lived slice marks what it wrote, and only that."""
    window = two_regions.get_slice(0x10000, 4 * PAGE, write=True)
    window.mark_dirty(PAGE, 1)
    assert two_regions.take_dirty() == ((0x11000, PAGE),)
    window.mark_dirty(3 * PAGE)
    assert two_regions.take_dirty() == ((0x13000, PAGE),)
    with pytest.raises(ValueError, match=r"range 0x3fff \+ 0x2 leaves a slice of 0x4000 bytes"):
        window.mark_dirty(4 * PAGE - 1, 2)
    assert two_regions.take_dirty() == ()


def test_read_slice_is_read_only_and_marks_nothing(two_regions):
    """Its view refuses writes, its marks are refused, closing marks nothing."""
    with two_regions.get_slice(0x10000, 8) as window:
        with pytest.raises(TypeError):
            window.view[0] = 1
        with pytest.raises(ClosedError, match="not open for writing"):
            window.mark_dirty()
    assert two_regions.take_dirty() == ()


def test_closed_slice(two_regions):
    """After close there is no view; closing again is fine."""
    window = two_regions.get_slice(0x10000, 8, write=True)
    window.close()
    window.close()
    assert window.closed
    with pytest.raises(ClosedError, match=r"slice 0x10000 \+ 0x8 is closed; take a new one with get_slice"):
        _ = window.view


def test_exported_view_keeps_the_slice_open(two_regions):
    """A buffer made from the view makes close refuse; the pages are marked all the same."""
    window = two_regions.get_slice(0x10000, 8, write=True)
    exported = cffi.FFI().from_buffer(window.view)
    with pytest.raises(RegionBusyError, match="a buffer made from it"):
        window.close()
    assert two_regions.take_dirty() == ((0x10000, PAGE),)
    assert not window.closed
    del exported
    gc.collect()
    window.close()


def test_slice_lies_in_one_region(two_regions):
    """A window over the edge is refused though a copy of the same range is not."""
    edge = 0x10000 + 4 * PAGE
    assert two_regions.check_range(edge - 4, 8)
    with pytest.raises(InvalidGuestAddressError, match="a slice lies in one region"):
        two_regions.get_slice(edge - 4, 8)
    with pytest.raises(InvalidGuestAddressError, match="0x30000 is not mapped"):
        two_regions.get_slice(0x30000, 1)
