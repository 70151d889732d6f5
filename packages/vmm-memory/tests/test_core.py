"""The C core called as C calls it: what Python has checked before, and what it never passes."""

import errno
import os

import pytest
from vmm_memory import AccessVector, FileOffset, GuestMemoryMmap, GuestRegionMmap, MemoryOrder
from vmm_memory._ffi import ffi, lib
from vmm_memory.testing import guarded_region

PAGE = 4096
BASE = 0x10000
OUTSIDE = 0x90000
TOP = (1 << 64) - PAGE


@pytest.fixture
def memory(tmp_path):
    """Two adjacent tracked pages, a read-only one after them, and the last page of the address space."""
    (tmp_path / "rom").write_bytes(b"R" * PAGE)
    with (tmp_path / "rom").open("rb") as file:
        rom = GuestRegionMmap.from_file(BASE + 2 * PAGE, PAGE, FileOffset(file.fileno()), read_only=True)
    pages = [guarded_region(BASE, PAGE), guarded_region(BASE + PAGE, PAGE), guarded_region(TOP, PAGE)]
    return GuestMemoryMmap([*pages, rom])


@pytest.fixture
def table(memory):
    """Its C table."""
    return memory.access_map().map


def ranges(*pairs):
    """A C array of ranges."""
    return ffi.new("struct vmm_range[]", pairs)


@pytest.mark.parametrize(
    ("addr", "size", "write", "rc"),
    [
        (OUTSIDE, 1, 0, -errno.EFAULT),
        (BASE + 2 * PAGE - 1, 2, 1, -errno.EACCES),
        (BASE + 3 * PAGE - 1, 2, 0, -errno.EFAULT),
        (TOP + PAGE - 1, 2, 0, -errno.ERANGE),
        (OUTSIDE, 0, 1, 0),
        (TOP, PAGE, 1, 0),
    ],
)
def test_each_call_checks_for_itself(table, addr, size, write, rc):
    """Copies, fills, comparisons, searches, lists: the same -errno for the same range."""
    buf, out = ffi.new("uint8_t[]", max(2 * size, 16)), ffi.new("uint64_t *")
    assert lib.vmm_check(table, addr, size, write) == rc
    if write:
        assert lib.vmm_write(table, addr, buf, size) == rc
        assert lib.vmm_mem_fill(table, addr, size, 0) == rc
        assert lib.vmm_mem_copy(table, addr, BASE, size) == rc
        assert lib.vmm_mem_scatter(table, ranges((BASE, 1), (addr, size)), 2, buf, out) == rc
    else:
        assert lib.vmm_read(table, addr, buf, size) == rc
        assert lib.vmm_mem_copy(table, BASE, addr, min(size, PAGE)) == rc
        assert lib.vmm_mem_compare(table, addr, ffi.NULL, BASE, min(size, PAGE), out) == rc
        assert lib.vmm_mem_compare(table, BASE, ffi.NULL, addr, size, out) == rc
        assert lib.vmm_mem_find(table, addr, size, b"z", 1, buf, 16, out) == rc
        assert lib.vmm_mem_gather(table, ranges((BASE, 1), (addr, size)), 2, buf, out) == rc
    assert rc == 0 or out[0] in (0, 1, (1 << 64) - 1)
    fd = os.memfd_create("empty")
    assert lib.vmm_mem_transfer(table, ranges((addr, size)), 1, 0, fd, 0, write, 1, out) == rc
    os.close(fd)


def test_how_far_memory_reaches(table):
    """Up to a hole, to a region that refuses, to the end of the address space; 0 from a hole."""
    reach = lib.vmm_mem_reach
    assert reach(table, BASE + 5, 10 * PAGE, lib.VMM_READ) == 3 * PAGE - 5
    assert reach(table, BASE + 5, 10 * PAGE, lib.VMM_WRITE) == 2 * PAGE - 5
    assert reach(table, BASE + 5, 7, lib.VMM_READ_WRITE) == 7
    assert reach(table, TOP + 5, 2 * PAGE, lib.VMM_READ) == PAGE - 5
    assert reach(table, OUTSIDE, 1, lib.VMM_READ) == 0
    assert reach(table, 0, 1, lib.VMM_READ) == 0
    assert reach(table, BASE, 0, lib.VMM_READ) == 0
    empty = GuestMemoryMmap().access_map().map
    assert reach(empty, 0, 1, lib.VMM_READ) == 0
    assert lib.vmm_check(empty, 0, 1, 0) == -errno.EFAULT


def test_copies_that_need_nothing(table, memory):
    """Of no bytes, and to where they are."""
    memory.write(BASE, b"here")
    memory.take_dirty()
    assert lib.vmm_mem_copy(table, BASE, BASE + 1, 0) == 0
    assert lib.vmm_mem_copy(table, BASE, BASE, 4) == 0
    assert memory.take_dirty() == ()


def test_find_wants_a_needle_and_room(table):
    """Of no bytes, or without room for two of them, is -EINVAL."""
    buf, out = ffi.new("uint8_t[]", 16), ffi.new("uint64_t *")
    assert lib.vmm_mem_find(table, BASE, 8, b"", 0, buf, 16, out) == -errno.EINVAL
    assert lib.vmm_mem_find(table, BASE, 8, b"123456789", 9, buf, 16, out) == -errno.EINVAL


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("order", [int(order) for order in MemoryOrder])
def test_every_atomic_of_every_size_and_order(table, memory, size, order):
    """The arithmetic, the mark, and each refusal."""
    out, top = ffi.new("uint64_t *"), (1 << (8 * size)) - 1
    steps = [
        (lib.VMM_MEM_OR, 0x55, 0, 0x0F, 0x5F),
        (lib.VMM_MEM_AND, 0xF0, 0, 0x5F, 0x50),
        (lib.VMM_MEM_ADD, top, 0, 0x50, 0x4F),
        (lib.VMM_MEM_EXCHANGE, 7, 0x4E, 0x4F, 0x4F),
        (lib.VMM_MEM_EXCHANGE, 7, 0x4F, 0x4F, 7),
    ]
    memory.store(BASE + 8, size, 0x0F)
    for op, value, expected, before, after in steps:
        memory.take_dirty()
        assert lib.vmm_mem_modify(table, BASE + 8, size, order, op, value, expected, out) == 0
        assert (out[0], memory.load(BASE + 8, size)) == (before, after)
        assert bool(memory.take_dirty()) is (before != after)
        for addr, rc in ((OUTSIDE, errno.EFAULT), (BASE + 2 * PAGE, errno.EACCES), (TOP, 0)):
            assert lib.vmm_mem_modify(table, addr, size, order, op, 0, 0, out) == -rc
        if size > 1:
            assert lib.vmm_mem_modify(table, BASE + 1, size, order, op, 0, 0, out) == -errno.EINVAL
        assert lib.vmm_mem_modify(table, BASE, size, 1, op, 0, 0, out) == -errno.EINVAL
        if size < 8:
            assert lib.vmm_mem_modify(table, BASE, size, order, op, top + 1, 0, out) == -errno.EDOM
    assert lib.vmm_mem_modify(table, BASE, 3, order, lib.VMM_MEM_OR, 0, 0, out) == -errno.EINVAL
    assert lib.vmm_mem_modify(table, BASE, 0, order, lib.VMM_MEM_OR, 0, 0, out) == -errno.EINVAL


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("order", range(6))
def test_every_vector_of_every_size_and_order(table, memory, size, order):
    """Across regions, tracked and not, forwards and back; each refusal with the number of those before."""
    places = [BASE + 8, BASE + PAGE + 8, BASE + 16, TOP]
    vector, back = AccessVector(places, size), AccessVector(places, size)
    for i in range(4):
        vector.values[i] = i + 1
    loads, stores = order in (0, 2, 5), order in (0, 3, 5)
    assert lib.vmm_mem_store_vector(table, vector.vector, order, 0) == (0 if stores else -errno.EINVAL)
    assert lib.vmm_mem_load_vector(table, back.vector, order, 0) == (0 if loads else -errno.EINVAL)
    if loads and stores:
        assert back.values.tolist() == [1, 2, 3, 4]
    for bad, rc in ((OUTSIDE, errno.EFAULT), (BASE + 9, errno.EINVAL if size > 1 else 0)):
        vector.addresses[2] = back.addresses[2] = bad
        if loads:
            assert lib.vmm_mem_load_vector(table, back.vector, order, 1) == -rc
            assert back.done == (2 if rc else 4)
        if stores:
            assert lib.vmm_mem_store_vector(table, vector.vector, order, 0) == -rc
            assert vector.done == (2 if rc else 4)
    vector.addresses[2] = BASE + 2 * PAGE
    assert lib.vmm_mem_store_vector(table, vector.vector, order, 0) == -(
        errno.EACCES if stores else errno.EINVAL
    )


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_regions_that_no_access_fits(size):
    """A region of odd length, or whose host address is aligned otherwise: refused, never misread."""
    buf = ffi.new("uint64_t[]", 4)
    odd = ffi.new("struct vmm_region *", {"base": 0x1000, "size": 12 if size == 8 else max(size - 1, 1)})
    odd.host = ffi.cast("uint8_t *", buf)
    claimed = ffi.new("struct vmm_map *", {"abi": lib.VMM_MAP_ABI, "count": 1, "regions": odd})
    last = 8 if size == 8 else 0
    vector = AccessVector([0x1000 + last], size)
    wanted = 0 if size == 1 else -errno.EFAULT
    assert lib.vmm_mem_load_vector(claimed, vector.vector, 0, 0) == wanted
    assert lib.vmm_mem_load_error(claimed, 0x1000 + last, size, 0) == wanted
    assert lib.vmm_mem_store(claimed, 0x1000 + last, size, 0, 0) == wanted
    if size > 1:
        odd.host, odd.size = ffi.cast("uint8_t *", buf) + 1, 16
        assert lib.vmm_mem_load_vector(claimed, vector.vector, 0, 0) == -errno.EINVAL
        assert lib.vmm_mem_store_vector(claimed, vector.vector, 0, 0) == -errno.EINVAL
        assert lib.vmm_mem_load_error(claimed, 0x1000, size, 0) == -errno.EINVAL
        assert lib.vmm_mem_store(claimed, 0x1000, size, 0, 0) == -errno.EINVAL
        out = ffi.new("uint64_t *")
        assert lib.vmm_mem_modify(claimed, 0x1000, size, 0, 0, 0, 0, out) == -errno.EINVAL
    assert lib.vmm_map_check(claimed) == 0
    claimed.regions = ffi.NULL
    assert lib.vmm_map_check(claimed) == -errno.EPROTO
    claimed.count = 0
    assert lib.vmm_map_check(claimed) == 0
    assert lib.vmm_map_check(ffi.NULL) == -errno.EPROTO


@pytest.mark.parametrize(
    ("size", "align", "rc"),
    [
        (0, PAGE, errno.EINVAL),
        (100, PAGE, errno.EINVAL),
        (PAGE, 512, errno.EINVAL),
        (PAGE, 3 * PAGE, errno.EINVAL),
        ((1 << 63) - PAGE, PAGE, errno.ENOMEM),
        (1 << 62, PAGE, errno.ENOMEM),
    ],
)
def test_mappings_that_cannot_be(size, align, rc):
    """Sizes and alignments are checked; what the kernel has not is its own refusal."""
    out = ffi.new("struct vmm_mapping *")
    assert lib.vmm_mem_map(size, 0, align, -1, 0, 0, out) == -rc


def test_what_the_kernel_refuses():
    """Unmapping, discarding, prefaulting and asking about what is not there."""
    out = ffi.new("uint64_t *")
    assert lib.vmm_mem_backing_page(-1, out) == -errno.EBADF
    # SAFETY: an address that is no page's start; the kernel refuses it without touching anything.
    nowhere = ffi.cast("uint8_t *", 1)
    assert lib.vmm_mem_unmap(nowhere, PAGE) == -errno.EINVAL
    assert lib.vmm_mem_discard(nowhere, PAGE, -1, 0, 0) == -errno.EINVAL
    assert lib.vmm_mem_discard(nowhere, PAGE, 10**6, 0, 1) == -errno.EBADF
    # SAFETY: the first page of the address space is never mapped; the kernel only looks.
    unmapped = ffi.cast("uint8_t *", 0)
    assert lib.vmm_mem_prefault(unmapped, PAGE, 0) == -errno.ENOMEM


def test_a_bitmap_outside_and_empty():
    """Bits past the end do not exist, and runs of none are none."""
    words, runs = ffi.new("uint64_t[]", 2), ffi.new("struct vmm_run[]", 2)
    lib.vmm_bits_set(words, 100, 100, 5)
    lib.vmm_bits_clear(words, 100, 0, 0)
    assert lib.vmm_bits_test(words, 100, 100) == 0
    assert lib.vmm_bits_runs(words, 100, 0, 2, runs) == 0
    lib.vmm_bits_set(words, 100, 60, 1 << 63)
    assert lib.vmm_bits_count(words, 100) == 40
    assert lib.vmm_bits_runs(words, 100, 0, 2, runs) == 1
    assert (runs[0].first, runs[0].count) == (60, 40)


def test_marks_wherever_they_lie(table, memory):
    """Of no bytes, past 2^64, before, between and after regions: what is not mapped is ignored."""
    for addr, size, pages in (
        (BASE, 0, 0),
        (BASE, 1, 1),
        (0, BASE, 0),
        (BASE - 1, 2, 1),
        (BASE + 3 * PAGE, 1 << 40, 0),
        (BASE + 2 * PAGE, PAGE, 0),
        (TOP + 5, (1 << 64) - 1, 1),
        (0, (1 << 64) - 1, 3),
    ):
        lib.vmm_mark_dirty(table, addr, size)
        assert sum(n for _, n in memory.take_dirty()) == pages * PAGE


@pytest.mark.parametrize("size", [0, 3, 16])
def test_integers_of_no_size(table, size):
    """Only 1, 2, 4 and 8 bytes can be loaded and stored."""
    assert lib.vmm_mem_store(table, BASE, size, 0, 0) == -errno.EINVAL
    assert lib.vmm_mem_load_error(table, BASE, size, 0) == -errno.EINVAL
    assert lib.vmm_mem_load(table, BASE, size, 0) == lib.VMM_MEM_POISON


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("skew", [0, 1])
@pytest.mark.parametrize("order", [*MemoryOrder, 1, 4, 6])
def test_words_of_a_map_of_somebody_elses(size, skew, order):
    """Any host address, any number for an order: one access of the whole word, or nothing and -EINVAL."""
    block = ffi.new("uint8_t[]", 64)
    host = ffi.cast("uint8_t *", (int(ffi.cast("uintptr_t", block)) + 15 & ~15) + skew)
    rows = [{"base": BASE + start, "size": 16, "host": host + start} for start in (0, 16)]
    regions = ffi.new("struct vmm_region[]", rows)
    table = ffi.new("struct vmm_map *", {"abi": lib.VMM_MAP_ABI, "count": len(rows), "regions": regions})
    loads = (MemoryOrder.RELAXED, MemoryOrder.ACQUIRE, MemoryOrder.SEQ_CST)
    stores = (MemoryOrder.RELAXED, MemoryOrder.RELEASE, MemoryOrder.SEQ_CST)
    reachable, value = skew % size == 0, (1 << 8 * size) - 2
    for addr in (BASE + 8, BASE + 16, BASE + 24):
        ffi.memmove(host + (addr - BASE), bytes(8), 8)
        rc = lib.vmm_mem_store(table, addr, size, order, value)
        assert rc == (0 if reachable and order in stores else -errno.EINVAL)
        written = bytes(ffi.buffer(host + (addr - BASE), 8))
        assert written == (value.to_bytes(size, "little") if rc == 0 else b"").ljust(8, b"\0")
        rc = lib.vmm_mem_load_error(table, addr, size, order)
        assert rc == (0 if reachable and order in loads else -errno.EINVAL)
        if rc == 0 and order in stores:
            assert lib.vmm_mem_load(table, addr, size, order) == value
