"""Memory behind an IOMMU, against a model that translates byte by byte."""

import os
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import (
    AccessVector,
    AtomicBitmap,
    FileOffset,
    ForkedError,
    GuestAccessError,
    GuestAddressSpace,
    GuestMemory,
    GuestMemoryAtomic,
    GuestMemoryMmap,
    GuestRegionMmap,
    InvalidGuestAddressError,
    InvalidRegionError,
    IommuFaultError,
    IommuMemory,
    Iotlb,
    IotlbEntry,
    Permissions,
    ReadOnlyRegionError,
    RegionBusyError,
)
from vmm_memory._ffi import ffi, lib
from vmm_memory.testing import guarded_region

PAGE = 4096
READ, WRITE = Permissions.READ, Permissions.WRITE
BOTH = READ | WRITE
RAM = 0x100000  # where physical memory begins, eight pages of it in two regions


class PageTable:
    """An IOMMU: pages, and how often it was asked."""

    def __init__(self, pages=()):
        self.pages, self.asked = dict(pages), []

    def translate(self, iova, size, permissions):
        """The page of the first byte, if it has all of these rights."""
        self.asked.append((iova, size, permissions))
        frame, rights = self.pages.get(iova // PAGE, (0, Permissions(0)))
        return [IotlbEntry(iova // PAGE * PAGE, PAGE, frame * PAGE, rights)] if permissions in rights else []


def ram():
    """Two adjacent regions of four tracked pages each."""
    return GuestMemoryMmap([guarded_region(RAM, 4 * PAGE), guarded_region(RAM + 4 * PAGE, 4 * PAGE)])


def contiguous(pages=8, rights=BOTH):
    """IOVA pages 0, 1, … as RAM's."""
    return PageTable({i: (RAM // PAGE + i, rights) for i in range(pages)})


class AgainstModel(RuleBasedStateMachine):
    """Accesses of all kinds through random page tables; the model looks each byte up in the table itself."""

    ranges = st.tuples(st.integers(0, 8 * PAGE), st.one_of(st.integers(0, 40), st.integers(0, 3 * PAGE)))

    @initialize(capacity=st.sampled_from((4, 2048)))
    def begin(self, capacity):
        """Bytes that tell where they are."""
        self.iommu, self.backend = PageTable(), ram()
        self.memory = IommuMemory(self.backend, self.iommu, iotlb=Iotlb(capacity))
        self.bytes = bytearray(i * 31 >> 3 & 255 for i in range(8 * PAGE))
        self.backend.write(RAM, self.bytes)
        self.backend.take_dirty()
        self.dirty = set()

    def places(self, addr, size, needed):
        """Index into RAM of each byte of a range, or None if one may not be accessed."""
        found = []
        for iova in range(addr, addr + size):
            frame, rights = self.iommu.pages.get(iova // PAGE, (0, Permissions(0)))
            index = frame * PAGE + iova % PAGE - RAM
            if needed not in rights or not 0 <= index < 8 * PAGE:
                return None
            found.append(index)
        return found

    def attempt(self, call, *args):
        """The result, or None for a fault."""
        try:
            return call(*args)
        except GuestAccessError:
            return None

    @rule(page=st.integers(0, 8), frame=st.integers(-1, 8), rights=st.sampled_from((READ, WRITE, BOTH)))
    def map(self, page, frame, rights):
        """A page anywhere in RAM or beside it, also twice; what was cached of it is invalidated."""
        self.iommu.pages[page] = (RAM // PAGE + frame, rights)
        self.memory.iotlb.invalidate(page * PAGE, PAGE, timeout=0)

    @rule(page=st.integers(0, 8))
    def unmap(self, page):
        """It cannot be accessed any more."""
        self.iommu.pages.pop(page, None)
        self.memory.iotlb.invalidate(page * PAGE, PAGE, timeout=0)

    @rule(span=ranges)
    def read(self, span):
        """Bytes, a list of ranges, a comparison and a search."""
        places = self.places(*span, READ)
        got = self.attempt(self.memory.read, *span)
        assert got == (None if places is None else bytes(self.bytes[i] for i in places))
        assert self.memory.check_range(*span) is (places is not None)
        assert self.attempt(self.memory.gather, [span, span]) == (got and got + got if got else got)
        if got:
            assert self.memory.compare(span[0], got) is None
            assert self.memory.find(*span, got[:1]) == span[0]

    @rule(span=ranges, seed=st.integers(0, 255), how=st.sampled_from(("write", "scatter", "fd", "slice")))
    def write(self, span, seed, how):
        """By each of the ways; a page that was written is dirty."""
        addr, size = span
        data = bytes((seed + i) & 255 for i in range(size))
        places = self.places(addr, size, WRITE)
        calls = {
            "write": lambda: self.memory.write(addr, data),
            "scatter": lambda: self.memory.scatter([span], data),
            "fd": lambda: self.from_file(span, data),
            "slice": lambda: self.by_slices(span, data),
        }
        if places is None:
            with pytest.raises(GuestAccessError):
                calls["write" if how == "slice" else how]()
            return
        calls[how]()
        for index, byte in zip(places, data, strict=True):
            self.bytes[index] = byte
            self.dirty.add(index // PAGE)

    def from_file(self, span, data):
        """Read the data out of a file."""
        fd = os.memfd_create("data")
        try:
            os.write(fd, data)
            self.memory.read_from_fd(span[0], fd, span[1], offset=0)
        finally:
            os.close(fd)

    def by_slices(self, span, data):
        """A slice per page, because pages need not follow each other."""
        at, end = span[0], sum(span)
        while at < end:
            size = min(end - at, PAGE - at % PAGE)
            with self.memory.get_slice(at, size, write=True) as window:
                window.view[:] = data[at - span[0] : at - span[0] + size]
            at += size

    @rule(places=st.lists(st.integers(0, 8 * PAGE // 4), min_size=1, max_size=12), value=st.integers(0, 255))
    def vectors(self, places, value):
        """Progress up to the first that faults; loads and read-modify-writes of single words."""
        vector = AccessVector([4 * place for place in places], 4)
        vector.values[:] = memoryview(bytes([value]) * 4 * len(places)).cast("I")
        self.attempt(self.memory.store_vector, vector)
        done = 0
        for place in places:
            found = self.places(4 * place, 4, WRITE)
            if found is None:
                break
            done += 1
            for index in found:
                self.bytes[index] = value
                self.dirty.add(index // PAGE)
        assert vector.done == done
        addr = 4 * places[0]
        found = self.places(addr, 4, BOTH)
        old = self.attempt(self.memory.fetch_or, addr, 4, 1)
        assert (old is None) is (found is None)
        if found is not None:
            assert old == int.from_bytes(bytes(self.bytes[i] for i in found), "little")
            self.bytes[found[0]] |= 1
            self.dirty.add(found[0] // PAGE)

    @rule(src=ranges, dst=st.integers(0, 8 * PAGE))
    def copy(self, src, dst):
        """Within what the device sees; only where no physical page is meant twice is the result defined."""
        frames = [frame for frame, _ in self.iommu.pages.values()]
        sources, targets = self.places(*src, READ), self.places(dst, src[1], WRITE)
        if sources is None or targets is None:
            with pytest.raises(GuestAccessError):
                self.memory.copy_within(src[0], dst, src[1])
        elif len(set(frames)) == len(frames):
            self.memory.copy_within(src[0], dst, src[1])
            for index, byte in zip(targets, [self.bytes[i] for i in sources], strict=True):
                self.bytes[index] = byte
                self.dirty.add(index // PAGE)

    @invariant()
    def physical_memory_is_the_model(self):
        """Bytes and dirty pages, seen from the other side."""
        if hasattr(self, "memory"):
            assert self.backend.read(RAM, 8 * PAGE) == self.bytes
            pages = {(a - RAM) // PAGE + i for a, n in self.backend.take_dirty() for i in range(n // PAGE)}
            assert pages <= self.dirty
            self.dirty -= pages
            assert not self.dirty, "written and not marked"


TestAgainstModel = AgainstModel.TestCase


def test_protocols():
    """It is memory, and an address space that follows the one behind it."""
    holder = GuestMemoryAtomic(GuestMemoryMmap([guarded_region(0, PAGE)]))
    memory = IommuMemory(holder, PageTable({0: (4, BOTH)}))
    assert isinstance(memory, GuestMemory)
    assert isinstance(memory, GuestAddressSpace)
    assert memory.memory() is memory
    with pytest.raises(InvalidGuestAddressError, match="IOVA 0x10 means 0x4010, where no memory is"):
        memory.read(0x10, 4)
    holder.insert_region(guarded_region(4 * PAGE, PAGE))
    newer = memory.memory()
    assert newer is not memory
    assert newer.iotlb is memory.iotlb
    newer.write(0x10, b"here")
    assert holder.memory().read(0x4010, 4) == b"here"
    with pytest.raises(InvalidRegionError, match="translated itself"):
        IommuMemory(memory, PageTable())


def test_a_hit_does_not_ask():
    """Once translated, the IOMMU hears nothing; neighbours are asked for one after the other."""
    iommu = contiguous()
    memory = IommuMemory(ram(), iommu)
    memory.write(PAGE - 2, b"four")
    assert iommu.asked == [(PAGE - 2, 4, WRITE), (PAGE, 2, WRITE)]
    for _ in range(3):
        assert memory.read(PAGE - 2, 4) == b"four"
        assert memory.load(0, 8) == 0
    assert len(iommu.asked) == 2
    assert list(memory.iotlb) == [IotlbEntry(0, 2 * PAGE, RAM)]


def test_faults_are_typed():
    """Which byte, which way, and whether it was the permission; nothing has moved."""
    iommu = PageTable({0: (RAM // PAGE, READ), 1: (RAM // PAGE + 1, WRITE)})
    backend = ram()
    memory = IommuMemory(backend, iommu)
    assert memory.read(PAGE - 4, 4) == bytes(4)
    with pytest.raises(
        IommuFaultError, match=r"guest range 0xffc \+ 0x8: IOVA 0x1000 is not translated \(to be read\)"
    ) as caught:
        memory.read(PAGE - 4, 8)
    assert (caught.value.iova, caught.value.write, caught.value.mapped) == (PAGE, False, False)
    with pytest.raises(IommuFaultError, match=r"IOVA 0xffc may not be written") as caught:
        memory.write(PAGE - 4, b"12345678")
    assert (caught.value.iova, caught.value.write, caught.value.mapped) == (PAGE - 4, True, True)
    memory.write(PAGE, b"w")
    with pytest.raises(IommuFaultError, match="IOVA 0x1000 may not be read"):
        memory.load(PAGE, 4)
    with pytest.raises(IommuFaultError):
        memory.compare_exchange(PAGE, 4, 0, 1)
    assert not memory.check_range(2 * PAGE, 1)
    assert backend.read(RAM, PAGE) == bytes(PAGE)


def test_a_range_of_more_entries_than_fit():
    """It faults and says why, instead of going round for ever."""
    scattered = PageTable({i: (RAM // PAGE + 7 - i, BOTH) for i in range(8)})
    memory = IommuMemory(ram(), scattered, iotlb=Iotlb(3))
    assert memory.read(0, 3 * PAGE) == bytes(3 * PAGE)
    with pytest.raises(IommuFaultError, match="the range needs more than 3 entries"):
        memory.read(0, 4 * PAGE)
    assert len(memory.iotlb) == 3


def test_an_iommu_that_answers_beside_the_question():
    """What does not cover the first missing byte is a refusal."""

    class Odd:
        def translate(self, iova, size, permissions):
            return [IotlbEntry(iova + 1, 1, RAM)]

    with pytest.raises(IommuFaultError):
        IommuMemory(ram(), Odd()).read(0, 2)


def test_read_only_memory_stays_so(tmp_path):
    """A translation that permits writes does not make a ROM writable."""
    (tmp_path / "rom").write_bytes(bytes(PAGE))
    with (tmp_path / "rom").open("rb") as file:
        rom = GuestRegionMmap.from_file(RAM, PAGE, FileOffset(file.fileno()), read_only=True)
    memory = IommuMemory(GuestMemoryMmap([rom]), contiguous(1))
    assert memory.load(0, 4) == 0
    with pytest.raises(ReadOnlyRegionError):
        memory.write(0, b"x")


def test_c_code_misses_and_is_resolved():
    """The table has what was translated, says so, and after `resolve` the next one has more."""
    backend = ram()
    memory = IommuMemory(backend, contiguous(2, READ))
    table = memory.access_map()
    out = ffi.new("uint8_t[]", 8)
    assert table.translated
    assert table.map.flags == lib.VMM_MAP_TRANSLATED
    assert lib.vmm_read(table.map, PAGE - 4, out, 8) == -14  # EFAULT
    memory.resolve(PAGE - 4, 8)
    assert lib.vmm_read(table.map, PAGE - 4, out, 8) == -14  # a snapshot does not change
    assert lib.vmm_read(memory.access_map().map, PAGE - 4, out, 8) == 0
    assert lib.vmm_write(memory.access_map().map, 0, out, 8) == -13  # EACCES
    with pytest.raises(IommuFaultError):
        memory.resolve(0, 8, write=True)
    backend.resolve(RAM, PAGE)
    with pytest.raises(InvalidGuestAddressError):
        backend.resolve(0, 1)
    assert not backend.access_map().translated


def test_write_only_is_refused_by_c():
    """VMM_REGION_WRITEONLY: neither read nor modify, but write."""
    memory = IommuMemory(ram(), contiguous(1, WRITE))
    memory.write(0, b"12345678")
    table, out = memory.access_map(), ffi.new("uint64_t *")
    assert lib.vmm_read(table.map, 0, out, 8) == -13
    assert lib.vmm_mem_load_error(table.map, 0, 8, 0) == -13
    assert lib.vmm_mem_modify(table.map, 0, 8, 5, lib.VMM_MEM_OR, 1, 0, out) == -13
    assert lib.vmm_mem_store(table.map, 0, 8, 0, 5) == 0


def test_invalidation_waits_for_tables_and_slices():
    """Who holds an older translation of the range is named; other ranges do not matter."""
    memory = IommuMemory(ram(), contiguous())
    window = memory.get_slice(PAGE, 16, write=True)
    memory.iotlb.invalidate(0, PAGE, timeout=0)
    with pytest.raises(
        RegionBusyError, match=r"<GuestSlice 0x1000 \+ 0x10 write> taken at test_iommu.py:\d+"
    ):
        memory.iotlb.invalidate(PAGE, PAGE, timeout=0.01)
    view = window.view[:4]
    window.close()
    with pytest.raises(RegionBusyError, match="a view cut from <GuestSlice"):
        memory.iotlb.invalidate(PAGE, PAGE, timeout=0.01)
    view.release()
    memory.iotlb.invalidate(PAGE, PAGE, timeout=0)
    memory.read(PAGE, 4)
    table = memory.access_map()
    with pytest.raises(RegionBusyError, match=r"AccessMap of 1 regions, made at test_iommu\.py"):
        memory.iotlb.invalidate(timeout=0.01)
    del table
    memory.iotlb.invalidate(timeout=0)


def test_writes_can_be_marked_by_iova():
    """In one bitmap of the device, and not in the regions'; past its end nothing is tracked."""
    backend, bitmap = ram(), AtomicBitmap(3 * PAGE)
    iommu = PageTable({1: (RAM // PAGE + 5, BOTH), 2: (RAM // PAGE + 6, BOTH), 3: (RAM // PAGE + 7, BOTH)})
    memory = IommuMemory(backend, iommu, bitmap=bitmap)
    memory.write(PAGE + 5, b"x")
    assert list(bitmap.ranges()) == [(PAGE, PAGE)]
    memory.fill(2 * PAGE, 2 * PAGE, 7)
    assert list(bitmap.ranges()) == [(PAGE, 2 * PAGE)]
    memory.store(3 * PAGE, 8, 1)
    with memory.get_slice(3 * PAGE, 8, write=True) as window:
        window.view[0] = 9
    assert bitmap.count() == 2
    assert backend.take_dirty() == ()
    assert backend.read(RAM + 6 * PAGE, 2 * PAGE) == b"\7" * PAGE + b"\x09" + bytes(7) + b"\7" * (PAGE - 8)


def test_forked_child():
    """Behind an IOMMU the child has no memory either, and the IOMMU is not asked."""
    iommu = contiguous()
    memory = IommuMemory(ram(), iommu)
    memory.read(0, 1)
    child = os.fork()
    if child == 0:
        try:
            memory.read(0, 1)
        except ForkedError:
            os._exit(0 if len(iommu.asked) == 1 else 2)
        except BaseException:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_accesses_while_translations_change():
    """Threads that write page after page while each is unmapped, moved and mapped: no byte goes astray."""
    frames = {0: RAM // PAGE, 1: RAM // PAGE + 1}
    iommu = PageTable({0: (frames[0], BOTH)})
    backend = ram()
    backend.fill(RAM, 8 * PAGE, 0)
    memory = IommuMemory(backend, iommu)
    stop, failures = threading.Event(), []

    def device():
        while not stop.is_set():
            try:
                memory.write(0, b"\xaa" * 64)
                memory.load(0, 8)
            except IommuFaultError:
                pass
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=device) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(300):
        del iommu.pages[0]
        memory.iotlb.invalidate(0, PAGE, timeout=30)
        # Nobody writes any more to the page that was mapped: it can be given to somebody else.
        backend.fill(RAM + turn % 2 * PAGE, PAGE, 0)
        assert backend.read(RAM + turn % 2 * PAGE, 64) == bytes(64)
        iommu.pages[0] = (frames[(turn + 1) % 2], BOTH)
        assert backend.read(RAM + turn % 2 * PAGE, 64) == bytes(64)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_long_reads_ask_before_they_allocate():
    """More than 64 KiB, page by page from the IOMMU; and an emptied table asks nobody."""
    pages = 32
    backend = GuestMemoryMmap([guarded_region(RAM, pages * PAGE)])
    backend.write(RAM + 31 * PAGE, b"end")
    iommu = contiguous(pages)
    memory = IommuMemory(backend, iommu)
    assert memory.read(0, pages * PAGE)[31 * PAGE :][:3] == b"end"
    with pytest.raises(IommuFaultError):
        memory.read(0, 1 << 40)
    assert memory.read_some(30 * PAGE, 1 << 20) == bytes(PAGE) + b"end" + bytes(PAGE - 3)
    asked = len(iommu.asked)
    memory.access_map().empty()
    with pytest.raises(ForkedError):
        memory.read(0, 1)
    assert len(iommu.asked) == asked
