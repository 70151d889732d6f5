"""Regions: what backs them, who may close them, and what the errors tell."""

import errno
import fcntl
import gc
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_memory import (
    ClosedError,
    FileOffset,
    FileTooSmallError,
    GuestMemoryMmap,
    GuestRegionMmap,
    HugepageError,
    InvalidRegionError,
    MappingError,
    ReadOnlyRegionError,
    RegionBusyError,
)
from vmm_memory._ffi import ffi, lib

PAGE = 4096


def is_mapped(address):
    """Does some mapping of this process begin at the address?"""
    with open("/proc/self/maps") as maps:
        return any(line.startswith(f"{address:x}-") for line in maps)


def vm_flags(address):
    """The VmFlags of the mapping that begins at the address."""
    with open("/proc/self/smaps") as maps:
        for line in maps:
            if line.startswith(f"{address:x}-"):
                return next(rest.split()[1:] for rest in maps if rest.startswith("VmFlags:"))
    raise AssertionError(f"nothing mapped at {address:#x}")


@pytest.fixture
def rom(tmp_path):
    """An open two-page file with a pattern."""
    path = tmp_path / "rom.bin"
    path.write_bytes(b"A" * PAGE + b"B" * PAGE)
    with path.open("r+b") as file:
        yield file


@pytest.mark.parametrize("make", [GuestRegionMmap.memfd, GuestRegionMmap.anonymous])
def test_forked_children_do_not_inherit(make):
    """The mapping carries MADV_DONTFORK ('dc' in VmFlags)."""
    assert "dc" in vm_flags(make(0, PAGE).host_address)


def test_memfd_can_be_shared_and_not_shrunk():
    """(fd, offset) show the same bytes to who maps them; the seals keep the size."""
    region = GuestRegionMmap.memfd(0x1000, 2 * PAGE, name="ram-test")
    memory = GuestMemoryMmap([region])
    memory.write(0x1000 + PAGE, b"shared")
    with mmap.mmap(region.file_offset.fd, 2 * PAGE) as other:
        assert other[PAGE : PAGE + 6] == b"shared"
    with pytest.raises(PermissionError):
        os.ftruncate(region.file_offset.fd, 0)
    assert not os.get_inheritable(region.file_offset.fd)
    assert "ram-test" in os.readlink(f"/proc/self/fd/{region.file_offset.fd}")


def test_slots_are_stable_and_unique():
    """Each region has a number of its own, unless the caller chose one."""
    regions = [GuestRegionMmap.anonymous(0, PAGE) for _ in range(5)]
    assert len({region.slot for region in regions}) == 5
    assert GuestRegionMmap.anonymous(0, PAGE, slot=500).slot == 500
    with pytest.raises(InvalidRegionError, match="slot is -1"):
        GuestRegionMmap.anonymous(0, PAGE, slot=-1)


@given(base_page=st.integers(0, 1 << 20))
def test_large_regions_are_congruent_to_the_guest(base_page):
    """Host and guest address agree modulo 2 MiB, so that KVM can use large pages."""
    region = GuestRegionMmap.anonymous(base_page * PAGE, 4 << 20)
    assert (region.host_address - region.base) % (2 << 20) == 0


@pytest.mark.parametrize(
    ("base", "size", "message"),
    [
        (0, 0, "must be at least a page within 0 .. 2\\^64"),
        (-PAGE, PAGE, "must be at least a page within"),
        ((1 << 64) - PAGE, 2 * PAGE, "must be at least a page within"),
        (0x800, PAGE, "0x800 \\+ 0x1000: base and size must be multiples of the page, 0x1000"),
        (0, 100, "0x0 \\+ 0x64: base and size must be multiples"),
    ],
)
def test_impossible_ranges(base, size, message):
    """Base and size are checked before anything is mapped."""
    with pytest.raises(InvalidRegionError, match=message):
        GuestRegionMmap.memfd(base, size)


def test_more_than_the_address_space():
    """A size that no mapping can have is the kernel's refusal, not a crash."""
    with pytest.raises(MappingError, match="mmap of 0x4000000000000000 bytes") as caught:
        GuestRegionMmap.anonymous(0, 1 << 62)
    assert caught.value.errno == errno.ENOMEM


def test_file_shared_and_private(rom):
    """Shared writes reach the file, private ones do not; the region has its own descriptor."""
    shared = GuestRegionMmap.from_file(0, PAGE, FileOffset(rom.fileno(), PAGE))
    private = GuestRegionMmap.from_file(PAGE, PAGE, FileOffset(rom.fileno(), PAGE), shared=False)
    memory = GuestMemoryMmap([shared, private])
    assert memory.read(PAGE - 1, 2) == b"BB"
    memory.write(0, b"shared")
    memory.write(PAGE, b"hidden")
    assert os.pread(rom.fileno(), 6, PAGE) == b"shared"
    assert shared.file_offset.fd != rom.fileno()
    assert shared.file_offset.offset == PAGE


def test_read_only_file(rom):
    """Neither copies, nor stores, nor slices, nor the mapping itself can be written."""
    region = GuestRegionMmap.from_file(0, PAGE, FileOffset(rom.fileno()), read_only=True)
    memory = GuestMemoryMmap([region, GuestRegionMmap.anonymous(PAGE, PAGE, dirty=True)])
    for write in (
        lambda: memory.write(PAGE - 1, b"xy"),
        lambda: memory.store(0, 4, 1),
        lambda: memory.fill(0, 8, 1),
        lambda: memory.get_slice(0, 8, write=True),
        lambda: region.discard(0, PAGE),
    ):
        with pytest.raises(ReadOnlyRegionError):
            write()
    assert memory.read(0, 4) == b"AAAA"
    assert memory.take_dirty() == ()
    assert not memory.check_range(PAGE - 1, 2, write=True)
    assert "wr" not in vm_flags(region.host_address)


def test_file_too_small(rom):
    """Both sizes are named, and the cure."""
    with pytest.raises(
        FileTooSmallError, match=r"file has 0x2000 bytes, the region needs 0x3000.*enlarge the file"
    ) as caught:
        GuestRegionMmap.from_file(0, 2 * PAGE, FileOffset(rom.fileno(), PAGE))
    assert (caught.value.file_size, caught.value.needed) == (2 * PAGE, 3 * PAGE)


def test_files_that_cannot_be_mapped(rom, tmp_path):
    """Pipes, closed descriptors, odd offsets and missing permission each have their sentence."""
    reader, writer = os.pipe()
    with pytest.raises(InvalidRegionError, match=f"file descriptor {reader} is no regular file"):
        GuestRegionMmap.from_file(0, PAGE, FileOffset(reader))
    os.close(reader)
    os.close(writer)
    with pytest.raises(MappingError, match="Bad file descriptor"):
        GuestRegionMmap.from_file(0, PAGE, FileOffset(writer))
    with pytest.raises(InvalidRegionError, match="file offset is 0x10, must be a multiple of 0x1000"):
        GuestRegionMmap.from_file(0, PAGE, FileOffset(rom.fileno(), 16))
    with (
        open(rom.name, "rb") as plain,
        pytest.raises(MappingError, match="open the file read-write, or pass read_only"),
    ):
        GuestRegionMmap.from_file(0, PAGE, FileOffset(plain.fileno()))
    with pytest.raises(InvalidRegionError, match=r"FileOffset\.offset is -1"):
        FileOffset(0, -1)


def test_failures_leave_no_descriptor_behind(rom):
    """Regions that could not be made close what they had opened."""
    before = set(os.listdir("/proc/self/fd"))
    with open(rom.name, "rb") as plain, pytest.raises(MappingError):
        GuestRegionMmap.from_file(0, PAGE, FileOffset(plain.fileno()))
    with pytest.raises(MappingError):
        GuestRegionMmap.memfd(0, 1 << 62)
    assert set(os.listdir("/proc/self/fd")) == before


def test_hugepages_that_are_not_there():
    """The error counts pages and names the file to write to, or the sizes there are."""
    with pytest.raises(HugepageError, match=r"1048576 huge pages of 2048 KiB needed, \d+ free: ") as caught:
        GuestRegionMmap.memfd(0, 2 << 40, hugepages=True)
    assert caught.value.needed == 1 << 20
    assert "hugepages=False" in str(caught.value)
    with pytest.raises(HugepageError, match="no pool of that size"):
        GuestRegionMmap.memfd(0, 64 << 10, hugepages=True, hugepage_size=64 << 10)
    with pytest.raises(InvalidRegionError, match="multiples of the page, 0x200000"):
        GuestRegionMmap.memfd(0, PAGE, hugepages=True)
    with pytest.raises(InvalidRegionError, match="hugepage_size is 0x3000"):
        GuestRegionMmap.memfd(0, 0x3000, hugepages=True, hugepage_size=0x3000)


def resident(region):
    """Bytes of it that have pages, as the kernel tells."""
    with open("/proc/self/smaps") as maps:
        lines = iter(maps)
        next(line for line in lines if line.startswith(f"{region.host_address:x}-"))
        return int(next(line for line in lines if line.startswith("Rss:")).split()[1]) * 1024


@pytest.mark.parametrize("make", [GuestRegionMmap.memfd, GuestRegionMmap.anonymous])
def test_prefault_backs_every_page(make):
    """All pages are resident before the guest touches any."""
    region = make(0, 64 * PAGE, prefault=True)
    assert resident(region) == 64 * PAGE


@pytest.mark.parametrize("write", [0, 1])
def test_prefault_page_by_page(write):
    """Where the kernel refuses MADV_POPULATE (as here for the address) each page is touched and kept."""
    region = GuestRegionMmap.memfd(0, 64 * PAGE)
    memory = GuestMemoryMmap([region])
    memory.write(2 * PAGE, b"kept" * 1000)
    # SAFETY: from the second byte of the mapping to its end.
    inside = ffi.cast("uint8_t *", region.host_address + 1)
    assert lib.vmm_mem_prefault(inside, 64 * PAGE - 1, write) == 0
    assert resident(region) == 64 * PAGE
    assert memory.read(PAGE, 3 * PAGE) == bytes(PAGE) + b"kept" * 1000 + bytes(2 * PAGE - 4000)


@pytest.mark.parametrize(
    "make",
    [
        GuestRegionMmap.memfd,
        GuestRegionMmap.anonymous,
        lambda b, s, dirty: GuestRegionMmap.anonymous(b, s, True, dirty=dirty),
    ],
)
def test_discard_reads_zero_and_is_dirty(make):
    """Given-back pages read as zero, their neighbours stay, and migration hears of it."""
    region = make(0x10000, 4 * PAGE, dirty=True)
    memory = GuestMemoryMmap([region])
    memory.fill(0x10000, 4 * PAGE, 0x5A)
    region.bitmap.reset()
    region.discard(PAGE, 2 * PAGE)
    assert memory.read(0x10000, 4 * PAGE) == b"\x5a" * PAGE + bytes(2 * PAGE) + b"\x5a" * PAGE
    assert memory.take_dirty() == ((0x10000 + PAGE, 2 * PAGE),)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (1, PAGE), (0, 100), (PAGE, 4 * PAGE), (-PAGE, PAGE)])
def test_discard_of_parts_of_pages(offset, size):
    """Only whole pages within the region can be given back."""
    with pytest.raises(InvalidRegionError, match="must be whole pages"):
        GuestRegionMmap.anonymous(0, 4 * PAGE).discard(offset, size)


def test_close_refuses_while_used():
    """Slices and maps are named; when they are gone the pages and the descriptor go."""
    region = GuestRegionMmap.memfd(0x10000, PAGE)
    host, fd = region.host_address, region.file_offset.fd
    window = region.get_slice(16, 4, write=True)
    with pytest.raises(
        RegionBusyError,
        match=r"used by <GuestSlice 0x10010 \+ 0x4 write> taken at test_region.py:\d+; close or drop",
    ) as caught:
        region.close()
    assert len(caught.value.users) == 1
    window.close()
    memory = GuestMemoryMmap([region])
    with pytest.raises(RegionBusyError, match="AccessMap of 1 regions"):
        region.close()
    assert is_mapped(host)
    del memory
    gc.collect()
    region.close()
    region.close()
    assert region.closed
    assert not is_mapped(host)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(fd, fcntl.F_GETFD)
    with pytest.raises(ClosedError, match=r"region 0x10000 \+ 0x1000 \(slot \d+\) is closed"):
        GuestMemoryMmap([region])


def test_dropped_regions_unmap_and_close():
    """Without close, the last reference does it."""
    region = GuestRegionMmap.memfd(0, PAGE)
    host, fd = region.host_address, region.file_offset.fd
    del region
    gc.collect()
    assert not is_mapped(host)
    assert not os.path.exists(f"/proc/self/fd/{fd}")
