"""Zero-copy slices: lifetime and the dirty rule."""

import gc
import threading

import cffi
import pytest
from vmm_memory import (
    ClosedError,
    FileOffset,
    GuestMemoryMmap,
    GuestRegionMmap,
    InvalidGuestAddressError,
    ReadOnlyRegionError,
    RegionBusyError,
)
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


def test_a_view_that_outlives_its_slice_is_named():
    """The slice may be closed, the region not, until the last view is gone; each is told with its place."""
    region = guarded_region(0, PAGE)
    with region.get_slice(8, 8, write=True) as window:
        part = window.view[2:4]
    with pytest.raises(
        RegionBusyError, match=r"a view cut from <GuestSlice 0x8 \+ 0x8 write> taken at test_slice\.py:\d+"
    ):
        region.close()
    part[0] = 1  # it is still good
    part.release()
    region.close()


def test_close_waits_for_the_last_view():
    """A thread that lets go in time; the region is closed then, and no earlier."""
    region = guarded_region(0, PAGE)
    window = region.get_slice(0, 8)
    timer = threading.Timer(0.05, window.close)
    timer.start()
    region.close(timeout=30)
    assert (region.closed, window.closed) == (True, True)
    timer.join()


def test_numpy_arrays_are_views():
    """They see and change guest memory, are marked with their slice, and keep the region open."""
    numpy = pytest.importorskip("numpy")
    region = guarded_region(0, 4 * PAGE)
    memory = GuestMemoryMmap([region])
    window = memory.get_slice(PAGE, 2 * PAGE, write=True)
    array = numpy.frombuffer(window.view, dtype="<u4")
    array[:] = numpy.arange(2 * PAGE // 4)
    assert memory.load(PAGE + 400, 4) == 100
    memory.store(PAGE, 4, 7)
    assert array[0] == 7
    assert memory.take_dirty() == ((PAGE, PAGE),)  # the store; not what numpy wrote
    window.close()
    assert memory.take_dirty() == ((PAGE, 2 * PAGE),)
    array[1] = 5  # still good; who writes now marks it
    memory.mark_dirty(PAGE + 4, 4)
    assert memory.take_dirty() == ((PAGE, PAGE),)
    del memory
    gc.collect()
    with pytest.raises(RegionBusyError, match="a view cut from <GuestSlice 0x1000"):
        region.close()
    del array
    gc.collect()
    region.close()


def test_regions_check_their_windows(tmp_path):
    """Outside, and for writing where that is not allowed."""
    region = guarded_region(0x1000, PAGE)
    for offset, size in ((-1, 4), (0, -1), (PAGE, 1), (0, PAGE + 1)):
        with pytest.raises(InvalidGuestAddressError, match="leaves the region 0x1000-0x1fff"):
            region.get_slice(offset, size)
    with region.get_slice(8, 4, write=True) as window:
        window.view[:] = b"mark"
    assert region.bitmap.count() == 1
    (tmp_path / "rom").write_bytes(bytes(PAGE))
    with (tmp_path / "rom").open("rb") as file:
        rom = GuestRegionMmap.from_file(0, PAGE, FileOffset(file.fileno()), read_only=True)
    with pytest.raises(ReadOnlyRegionError):
        rom.get_slice(0, 4, write=True)
    untracked = GuestRegionMmap.anonymous(0, PAGE)
    with untracked.get_slice(0, 4, write=True) as window:
        window.mark_dirty()
    with GuestMemoryMmap([untracked]).get_slice(0, 4, write=True) as window:
        window.mark_dirty()
