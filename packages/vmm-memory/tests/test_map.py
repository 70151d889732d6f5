"""The map's accesses against the bytearray twin, and its rules against intervals."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import (
    GuestAccessError,
    GuestMemoryMmap,
    GuestRegionMmap,
    InvalidGuestAddressError,
    InvalidRegionError,
    MemoryOrder,
    MisalignedAccessError,
    NoSuchRegionError,
    PartialBufferError,
    RegionOverlapError,
)
from vmm_memory.testing import ByteArrayMemory, guarded_region
from vmm_memory.testing.strategies import TOP, layouts, ranges_near

PAGE = 4096


def outcome(call, *args, **kwargs):
    """What a call returned, or the type and text of what it raised."""
    try:
        return call(*args, **kwargs)
    except (GuestAccessError, ValueError) as error:
        return type(error), str(error)


class AgainstTwin(RuleBasedStateMachine):
    """The same script on mmap regions and on the twin: same bytes, same errors, same dirty pages."""

    @initialize(layout=layouts())
    def begin(self, layout):
        """Build both over one layout."""
        self.layout, self.ranges = layout, ranges_near(layout)
        self.real = GuestMemoryMmap([guarded_region(base, size) for base, size in layout])
        self.twin = ByteArrayMemory(layout)

    @rule(data=st.data(), byte=st.binary(min_size=1, max_size=7))
    def write(self, data, byte):
        """Any range, patterned so that a shifted copy differs."""
        addr, size = data.draw(self.ranges)
        payload = (byte * (size // len(byte) + 1))[:size]
        assert outcome(self.real.write, addr, payload) == outcome(self.twin.write, addr, payload)

    @rule(data=st.data())
    def read(self, data):
        """Any range, as a copy and into a buffer."""
        addr, size = data.draw(self.ranges)
        expected = outcome(self.twin.read, addr, size)
        assert outcome(self.real.read, addr, size) == expected
        buffer = bytearray(size)
        got = outcome(self.real.read_into, addr, buffer)
        assert (bytes(buffer) if got is None else got) == expected

    @rule(data=st.data(), size=st.sampled_from((0, 1, 2, 3, 4, 8, 16)), order=st.sampled_from(MemoryOrder))
    def load(self, data, size, order):
        """Every size and order, the impossible ones too."""
        addr, _ = data.draw(self.ranges)
        assert outcome(self.real.load, addr, size, order) == outcome(self.twin.load, addr, size, order)

    @rule(
        data=st.data(),
        size=st.sampled_from((1, 2, 4, 8)),
        order=st.sampled_from(MemoryOrder),
        value=st.one_of(st.integers(0, 255), st.integers(-1, TOP)),
    )
    def store(self, data, size, order, value):
        """Every order, values of all widths."""
        addr, _ = data.draw(self.ranges)
        assert outcome(self.real.store, addr, size, value, order) == outcome(
            self.twin.store, addr, size, value, order
        )

    @rule(data=st.data(), byte=st.integers(0, 255))
    def fill(self, data, byte):
        """Any range, one value."""
        addr, size = data.draw(self.ranges)
        assert outcome(self.real.fill, addr, size, byte) == outcome(self.twin.fill, addr, size, byte)

    @rule(data=st.data(), write=st.booleans(), payload=st.binary(min_size=1, max_size=64))
    def slice(self, data, write, payload):
        """A window succeeds on both or on neither; what is written through it is seen."""
        addr, size = data.draw(self.ranges)
        fits = any(
            base <= addr < base + length and addr + size <= base + length for base, length in self.layout
        )
        for memory in (self.real, self.twin):
            if not fits:
                with pytest.raises(GuestAccessError):
                    memory.get_slice(addr, size, write=write)
                continue
            with memory.get_slice(addr, size, write=write) as window:
                assert len(window.view) == size
                assert window.view.readonly is not write
                if write:
                    window.view[: len(payload)] = payload[:size]

    @rule(data=st.data())
    def mark(self, data):
        """Explicit marks, holes included."""
        addr, size = data.draw(self.ranges)
        self.real.mark_dirty(addr, size)
        self.twin.mark_dirty(addr, size)

    @rule(data=st.data(), write=st.booleans())
    def check(self, data, write):
        """check_range foretells."""
        addr, size = data.draw(self.ranges)
        assert self.real.check_range(addr, size, write=write) == self.twin.check_range(
            addr, size, write=write
        )

    @invariant()
    def same_dirty_pages(self):
        """The bitmap holds exactly the pages the twin remembers."""
        if not hasattr(self, "real"):
            return
        pages = {
            (region.base, page)
            for region in self.real
            for page in range(len(region.bitmap))
            if region.bitmap.is_bit_set(page)
        }
        assert pages == self.twin.dirty

    def teardown(self):
        """The bytes are equal at the end."""
        for base, size in getattr(self, "layout", ()):
            assert self.real.read(base, size) == self.twin.read(base, size)


TestAgainstTwin = AgainstTwin.TestCase


class AgainstIntervals(RuleBasedStateMachine):
    """Insert, remove and find against a dict of intervals."""

    spans = st.tuples(
        st.sampled_from((0, 0x10, 0x11, 0x12, 0x14, 0x18, (TOP >> 12) - 3, (TOP >> 12) - 2, (TOP >> 12) - 1)),
        st.integers(1, 3),
    ).map(lambda pages: (pages[0] * PAGE, pages[1] * PAGE))

    def __init__(self):
        super().__init__()
        self.map = GuestMemoryMmap()
        self.model = {}

    @rule(span=spans)
    def insert(self, span):
        """Refused exactly when an interval is in the way or the top is passed; adjacency is fine."""
        base, size = span
        if base + size > TOP:
            with pytest.raises(InvalidRegionError, match="must be at least a page within"):
                GuestRegionMmap.anonymous(base, size)
            return
        region = GuestRegionMmap.anonymous(base, size)
        if any(base < other + length and other < base + size for other, length in self.model.items()):
            with pytest.raises(RegionOverlapError):
                self.map.insert_region(region)
            return
        before = self.map
        self.map = before.insert_region(region)
        self.model[base] = size
        assert region not in before.regions

    @rule(span=spans)
    def remove(self, span):
        """Exact base and size, or nothing happens."""
        base, size = span
        if self.model.get(base) != size:
            with pytest.raises(NoSuchRegionError):
                self.map.remove_region(base, size)
            return
        self.map = self.map.remove_region(base, size)
        del self.model[base]

    @rule(span=spans, step=st.sampled_from((-1, 0, 1)))
    def find(self, span, step):
        """find_region and check_range agree with the intervals, at their edges too."""
        addr = min(max(span[0] + step, 0), TOP - 1)
        owner = [base for base, size in self.model.items() if base <= addr < base + size]
        found = self.map.find_region(addr)
        assert ([] if found is None else [found.base]) == owner
        assert self.map.check_range(addr, 1) is bool(owner)

    @invariant()
    def sorted_and_complete(self):
        """The regions are the model in order; last_addr is its end."""
        assert [(region.base, region.size) for region in self.map] == sorted(self.model.items())
        assert self.map.last_addr == max((base + size - 1 for base, size in self.model.items()), default=0)


TestAgainstIntervals = AgainstIntervals.TestCase


def test_run_off_the_end_reports_how_far(two_regions):
    """A range that begins mapped names what there is, and moves nothing."""
    end = 0x10000 + 8 * PAGE
    with pytest.raises(
        PartialBufferError, match="only the first 0x3 bytes are mapped; none was moved"
    ) as caught:
        two_regions.write(end - 3, b"12345")
    assert (caught.value.expected, caught.value.completed, caught.value.available) == (5, 0, 3)
    assert two_regions.read(end - 3, 3) == bytes(3)
    assert two_regions.take_dirty() == ()


def test_end_at_2_to_the_64():
    """The last byte of the address space can be used; one more wraps."""
    memory = GuestMemoryMmap([guarded_region(TOP - PAGE, PAGE)])
    memory.write(TOP - 8, b"lastword")
    assert memory.read(TOP - 8, 8) == b"lastword"
    assert memory.load(TOP - 8, 8) == int.from_bytes(b"lastword", "little")
    assert memory.last_addr == TOP - 1
    assert memory.take_dirty() == ((TOP - PAGE, PAGE),)
    with pytest.raises(
        InvalidGuestAddressError, match=r"guest range 0xfffffffffffffff8 \+ 0x9: wraps around 2\^64"
    ):
        memory.read(TOP - 8, 9)


def test_the_poison_value_is_an_ordinary_value(two_regions):
    """The number that load uses to say "ask again" can be stored and loaded like any other."""
    two_regions.store(0x10000, 8, 0xB5E15B0D0BADF00D, MemoryOrder.SEQ_CST)
    assert two_regions.load(0x10000, 8, MemoryOrder.ACQUIRE) == 0xB5E15B0D0BADF00D


def test_huge_size_from_a_guest_allocates_nothing(two_regions):
    """A terabyte asked of a small map is refused before a buffer is made."""
    with pytest.raises(PartialBufferError):
        two_regions.read(0x10000, 1 << 40)


def test_numbers_outside_64_bits(two_regions):
    """Addresses and sizes that no guest register can hold are told apart."""
    with pytest.raises(InvalidGuestAddressError, match=r"address must be in 0 \.\. 2\^64 - 1"):
        two_regions.read(-1, 4)
    with pytest.raises(InvalidGuestAddressError, match=r"address must be in 0 \.\. 2\^64 - 1"):
        two_regions.store(TOP, 4, 1)
    with pytest.raises(ValueError, match="size is -4, must be 0 or more"):
        two_regions.read(0x10000, -4)
    assert not two_regions.check_range(TOP, 1)


def test_write_takes_any_buffer(two_regions):
    """bytes, bytearray and memoryviews of wider items give the same bytes."""
    words = memoryview(bytearray(struct.pack("<4I", 1, 2, 3, 4))).cast("I")
    two_regions.write(0x10000, words)
    two_regions.write(0x10010, bytearray(b"abcd"))
    assert two_regions.read(0x10000, 20) == struct.pack("<4I", 1, 2, 3, 4) + b"abcd"
    with pytest.raises(TypeError):
        two_regions.write(0x10000, "text")


def test_structs(two_regions):
    """A structure goes in and comes out across a region boundary."""
    layout = struct.Struct("<QIHH")
    two_regions.write_struct(0x10000 + 4 * PAGE - 6, layout, 1 << 63, 2, 3, 4)
    assert two_regions.read_struct(0x10000 + 4 * PAGE - 6, layout) == (1 << 63, 2, 3, 4)


def test_one_slot_twice_is_refused():
    """Two regions with one slot id cannot be in one map."""
    with pytest.raises(InvalidRegionError, match="slot 7 is used at 0x0 and at 0x10000"):
        GuestMemoryMmap([GuestRegionMmap.anonymous(base, PAGE, slot=7) for base in (0, 0x10000)])


def test_overlap_names_both(two_regions):
    """The error has both ranges, in hex and as fields."""
    with pytest.raises(RegionOverlapError, match="0x10000-0x13fff and 0x13000-0x13fff") as caught:
        two_regions.insert_region(GuestRegionMmap.anonymous(0x13000, PAGE))
    assert caught.value.second == (0x13000, 0x13FFF)


def test_misaligned_store_says_so(two_regions):
    """A typed access off its alignment names the alignment."""
    with pytest.raises(MisalignedAccessError, match="address must be a multiple of 4"):
        two_regions.store(0x10002, 4, 1)


@given(order=st.sampled_from((MemoryOrder.ACQUIRE, MemoryOrder.RELEASE)))
def test_orders_that_cannot_be(order):
    """A load cannot release, a store cannot acquire."""
    memory = GuestMemoryMmap([GuestRegionMmap.anonymous(0, PAGE)])
    call = (
        (lambda: memory.load(0, 4, order))
        if order is MemoryOrder.RELEASE
        else (lambda: memory.store(0, 4, 1, order))
    )
    with pytest.raises(ValueError, match="memory order"):
        call()
