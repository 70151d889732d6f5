"""Typed read-modify-writes, vectors and short transfers, against the twin and under threads."""

import itertools
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import (
    AccessVector,
    ForkedError,
    GuestAccessError,
    GuestMemoryMmap,
    GuestRegionMmap,
    InvalidGuestAddressError,
    MemoryOrder,
    MisalignedAccessError,
    PartialBufferError,
    ReadOnlyRegionError,
)
from vmm_memory.testing import ByteArrayMemory, guarded_region
from vmm_memory.testing.strategies import TOP, addresses_near, layouts

PAGE = 4096
SIZES = (1, 2, 4, 8)


def outcome(call, *args, **kwargs):
    """What a call returned, or the type, text and progress of what it raised."""
    try:
        return call(*args, **kwargs)
    except GuestAccessError as error:
        return type(error), str(error), error.completed
    except ValueError as error:
        return type(error), str(error)


class Typed(RuleBasedStateMachine):
    """The same script of typed accesses on mmap regions and on the twin."""

    orders = st.sampled_from(MemoryOrder)
    values = st.one_of(st.integers(0, 255), st.integers(-1, TOP))

    @initialize(layout=layouts(), read_only=st.booleans())
    def begin(self, layout, read_only):
        """Both over one layout; sometimes its first region is read-only, which is what a file can be."""
        self.layout, self.near = layout, addresses_near(layout)
        self.real = GuestMemoryMmap([guarded_region(base, size) for base, size in layout])
        self.twin = ByteArrayMemory(layout)

    def both(self, name, *args):
        """Call it on both and compare."""
        assert outcome(getattr(self.real, name), *args) == outcome(getattr(self.twin, name), *args)

    @rule(
        data=st.data(),
        name=st.sampled_from(("fetch_or", "fetch_and", "fetch_add")),
        size=st.sampled_from((*SIZES, 3)),
        value=values,
        order=orders,
    )
    def fetch(self, data, name, size, value, order):
        """Any address, any number, any order."""
        self.both(name, data.draw(self.near), size, value, order)

    @rule(data=st.data(), size=st.sampled_from(SIZES), desired=values, hit=st.booleans(), order=orders)
    def exchange(self, data, size, desired, hit, order):
        """With the value that is there, and with another."""
        addr = data.draw(self.near)
        try:
            expected = self.twin.load(addr, size)
        except GuestAccessError:
            expected = 0
        expected = expected if hit else (expected + 1) % (1 << (8 * size))
        self.both("compare_exchange", addr, size, expected, desired, order)

    @rule(data=st.data(), size=st.sampled_from(SIZES), order=orders, good=st.booleans())
    def vectors(self, data, size, order, good):
        """Loads and stores of many addresses, most of them good ones; progress included."""
        some = st.lists(self.near.map(lambda a: a - a % size if good else a), min_size=1, max_size=20)
        places = data.draw(some)
        values = [data.draw(st.integers(0, (1 << (8 * size)) - 1)) for _ in places]
        vectors = [AccessVector(places, size) for _ in range(2)]
        for vector in vectors:
            vector.values[:] = memoryview(b"".join(v.to_bytes(size, "little") for v in values)).cast(
                vector.values.format
            )
            vector.count = (
                data.draw(st.integers(0, len(places))) if vector is vectors[0] else vectors[0].count
            )
        mine, theirs = vectors
        assert outcome(self.real.store_vector, mine, order) == outcome(self.twin.store_vector, theirs, order)
        assert outcome(self.real.load_vector, mine, order) == outcome(self.twin.load_vector, theirs, order)
        assert mine.values.tolist() == theirs.values.tolist()

    @rule(data=st.data(), size=st.integers(0, 3 * PAGE))
    def short(self, data, size):
        """As much as there is: the prefix that a whole access of that length can have."""
        addr = data.draw(self.near)
        payload = random.Random(addr ^ size).randbytes(size)
        reach = 0
        while reach < size and addr + reach < TOP and self.twin.check_range(addr, reach + 1):
            # Steps to the next page edge, where mapped memory may end.
            reach = min(size, reach + PAGE - (addr + reach) % PAGE)
        if size and not reach:
            with pytest.raises(InvalidGuestAddressError):
                self.real.write_some(addr, payload)
            with pytest.raises(InvalidGuestAddressError):
                self.real.read_some(addr, size)
            return
        assert self.real.write_some(addr, payload) == reach
        self.twin.write(addr, payload[:reach])
        assert self.real.read_some(addr, size) == payload[:reach]

    @invariant()
    def same_dirty_pages(self):
        """Exactly the pages that were stored to."""
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


TestTyped = Typed.TestCase


@given(values=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=300), shift=st.integers(0, 4))
def test_vector_marks_every_page_it_stores_to(values, shift):
    """Bits of one word are set together, others are not forgotten; dirty pages of a byte up to 64 KiB."""
    page = 1 << (4 * shift)
    region = GuestRegionMmap.anonymous(0, 64 * PAGE, dirty=True, dirty_page_size=page)
    memory = GuestMemoryMmap([region])
    places = [value % (64 * PAGE // 8) * 8 for value in values]
    vector = AccessVector(places, 8)
    memory.store_vector(vector)
    touched = {byte // page for place in places for byte in range(place, place + 8)}
    runs = region.bitmap.ranges()
    assert {byte // page for start, size in runs for byte in range(start, start + size, page)} == touched


def test_vector_of_one_size_and_count():
    """Its views have the right shape; count can be less than there is room for."""
    memory = GuestMemoryMmap([guarded_region(0x1000, PAGE)])
    vector = AccessVector(4, 2)
    assert (len(vector), vector.count, vector.values.format, vector.addresses.format) == (4, 4, "H", "Q")
    for i in range(4):
        vector.addresses[i], vector.values[i] = 0x1000 + 2 * i, 0x1111 * (i + 1)
    vector.count = 3
    memory.store_vector(vector, MemoryOrder.RELEASE)
    assert memory.read(0x1000, 8) == bytes.fromhex("1111 2222 3333 0000")
    assert (vector.done, repr(vector)) == (3, "<AccessVector of 3 x 2 bytes>")
    memory.store(0x1002, 2, 7)
    memory.load_vector(vector, MemoryOrder.ACQUIRE)
    assert vector.values.tolist() == [0x1111, 7, 0x3333, 0x4444]
    with pytest.raises(ValueError, match=r"count is 5, must be in 0 \.\. 4"):
        vector.count = 5


@pytest.mark.parametrize(
    ("addresses", "size", "message"), [(3, 3, "size is 3"), (0, 4, "has 0 addresses"), ([], 4, "0 addresses")]
)
def test_vectors_that_cannot_be(addresses, size, message):
    """Size and length are checked."""
    with pytest.raises(ValueError, match=message):
        AccessVector(addresses, size)


def test_vector_tells_where_it_stopped():
    """What came before the bad address is done and marked; the error names it."""
    memory = GuestMemoryMmap([guarded_region(0, PAGE), guarded_region(PAGE, PAGE)])
    vector = AccessVector([0, PAGE, 2 * PAGE, 8], 8)
    vector.values[:] = memoryview(bytes(range(32))).cast("Q")
    with pytest.raises(InvalidGuestAddressError, match="0x2000 is not mapped") as caught:
        memory.store_vector(vector)
    assert (caught.value.address, caught.value.completed, vector.done) == (2 * PAGE, 2, 2)
    assert memory.take_dirty() == ((0, PAGE), (PAGE, PAGE))
    assert memory.load(8, 8) == 0
    vector.addresses[2] = 4
    with pytest.raises(MisalignedAccessError, match="must be a multiple of 8") as caught:
        memory.load_vector(vector)
    assert caught.value.completed == 2
    with pytest.raises(ValueError, match="memory order"):
        memory.load_vector(vector, MemoryOrder.RELEASE)
    with pytest.raises(OverflowError):
        AccessVector([TOP], 8)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 4), min_size=1, max_size=12), st.booleans(), st.sampled_from(MemoryOrder)
        ),
        min_size=2,
        max_size=6,
    ),
    st.permutations(range(24)),
)
def test_vector_outlives_its_maps(scenes, places):
    """One vector in many maps, whose regions lie, end and are numbered otherwise each time: as the twin's."""
    mine, theirs = AccessVector(len(places), 8), AccessVector(len(places), 8)
    for number, (pages, dirty, order) in enumerate(scenes):
        spans, base = [], 0
        for size in pages:
            spans.append((base, size * PAGE))
            base += (size + (number + size) % 2) * PAGE  # some of them with a hole behind
        real = GuestMemoryMmap.from_ranges(spans, dirty=dirty)
        twin = ByteArrayMemory(spans)
        for i, place in enumerate(places):
            mine.addresses[i] = theirs.addresses[i] = place * PAGE + 8 * (number * i % 512)
            mine.values[i] = theirs.values[i] = 1000 * number + i
        for ours, other in (
            (real.store_vector, twin.store_vector),
            (real.load_vector, twin.load_vector),
        ):
            assert outcome(ours, mine, order) == outcome(other, theirs, order)
            assert mine.values.tolist() == theirs.values.tolist()
        for start, size in spans:
            assert real.read(start, size) == twin.read(start, size)
        regions = real.regions
        del real, ours
        for region in regions:
            region.close()  # the vector does not keep it


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [13, 1025])  # with the interpreter's lock held, and released
def test_vector_stops_at_a_bad_access_wherever_it_is(size, length):
    """What goes several at a time goes no further than one at a time: a hole, the end, a wrong alignment."""
    spans = [(PAGE, PAGE), (3 * PAGE, PAGE)]
    bad = [2 * PAGE, 5 * PAGE, (1 << 64) - size, 0] + ([PAGE + 1] if size > 1 else [])
    for at in (*range(13), length - 1):
        for place, dirty in itertools.product(bad, (False, True)):
            real, twin = GuestMemoryMmap.from_ranges(spans, dirty=dirty), ByteArrayMemory(spans)
            good = [(PAGE if i % 7 else 3 * PAGE) + i * size % PAGE for i in range(length)]
            mine, theirs = (AccessVector([*good[:at], place, *good[at + 1 :]], size) for _ in range(2))
            for vector in (mine, theirs):
                vector.values[:] = memoryview(bytes(i % 251 for i in range(length * size))).cast(
                    vector.values.format
                )
            for _ in range(2):  # the second time bound
                assert outcome(real.store_vector, mine) == outcome(twin.store_vector, theirs)
                assert mine.done == at
                assert outcome(real.load_vector, mine) == outcome(twin.load_vector, theirs)
                assert mine.values.tolist() == theirs.values.tolist()
            assert all(real.read(*span) == twin.read(*span) for span in spans)


def test_vector_between_two_maps():
    """What one thread bound does not change under a call of another: each call has a pair of its own."""
    first, second = (GuestMemoryMmap.from_ranges([(0, PAGE)]) for _ in range(2))
    vector = AccessVector([8], 8)
    first.load_vector(vector)
    _, call = vector.bound
    second.load_vector(vector)
    assert vector.bound[1] != call
    assert call.map == first.access_map().map
    assert vector.bound[0] == second.access_map().map


def test_read_only_memory_refuses_all_of_them(tmp_path):
    """Neither vectors nor read-modify-writes change a ROM; loads work."""
    from vmm_memory import FileOffset

    (tmp_path / "rom").write_bytes(b"\x21" * PAGE)
    with (tmp_path / "rom").open("rb") as file:
        region = GuestRegionMmap.from_file(0, PAGE, FileOffset(file.fileno()), read_only=True)
    memory, vector = GuestMemoryMmap([region]), AccessVector([0, 4], 4)
    memory.load_vector(vector)
    assert vector.values.tolist() == [0x21212121] * 2
    for change in (
        lambda: memory.store_vector(vector),
        lambda: memory.fetch_or(0, 4, 1),
        lambda: memory.compare_exchange(0, 4, 0x21212121, 1),
        lambda: memory.write_some(0, b"x"),
    ):
        with pytest.raises(ReadOnlyRegionError):
            change()
    with pytest.raises(PartialBufferError):
        memory.read(PAGE - 1, 2)
    assert memory.read_some(PAGE - 1, 2) == b"!"


@pytest.mark.parametrize("size", SIZES)
def test_concurrent_adds_are_not_lost(size):
    """Four threads count with fetch_add, and mark their own bit with fetch_or."""
    memory = GuestMemoryMmap([guarded_region(0, PAGE)])
    rounds = 60 if size == 1 else 3000

    def count(bit):
        for _ in range(rounds):
            memory.fetch_add(0, size, 1, MemoryOrder.RELAXED)
        memory.fetch_or(8, size, 1 << bit, MemoryOrder.RELEASE)

    threads = [threading.Thread(target=count, args=(bit,)) for bit in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.load(0, size) == 4 * rounds
    assert memory.load(8, size, MemoryOrder.ACQUIRE) == 0xF


def test_a_lock_of_compare_exchange():
    """Mutual exclusion by acquire and release holds: the unprotected counter loses nothing."""
    memory = GuestMemoryMmap([guarded_region(0, PAGE)])

    def work():
        for _ in range(500):
            while memory.compare_exchange(0, 4, 0, 1, MemoryOrder.ACQUIRE):
                pass
            memory.store(8, 8, memory.load(8, 8) + 1)
            memory.store(0, 4, 0, MemoryOrder.RELEASE)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.load(8, 8) == 1500


@pytest.mark.parametrize(
    ("size", "way"), [(2, "write"), (4, "copy"), (8, "write"), (8, "copy"), (8, "vector")]
)
def test_aligned_integers_are_never_torn(size, way):
    """A reader beside a writer of all-zeros and all-ones sees only those, whichever call each uses."""
    memory = GuestMemoryMmap([guarded_region(0, PAGE)])
    ones, stop, seen = b"\xff" * size, threading.Event(), set()
    memory.write(64, ones)
    vector = AccessVector([0] * 64, size)
    vector.values[1::2] = AccessVector(32, size).values
    for i in range(0, 64, 2):
        vector.values[i] = (1 << (8 * size)) - 1

    def writer():
        while not stop.is_set():
            if way == "vector":
                memory.store_vector(vector)
            elif way == "copy":
                memory.copy_within(64, 0, size)
                memory.copy_within(128, 0, size)
            else:
                memory.write(0, ones)
                memory.write(0, bytes(size))

    thread = threading.Thread(target=writer)
    thread.start()
    for _ in range(3000):
        seen |= {memory.read(0, size), memory.load(0, size).to_bytes(size, "little")}
    stop.set()
    thread.join()
    assert seen <= {ones, bytes(size)}


def test_numbers_that_no_register_holds(two_regions):
    """Each kind of call tells the address from the size and the value, and changes nothing."""
    calls = [
        lambda a: two_regions.mark_dirty(a, 4),
        lambda a: two_regions.resolve(a, 4),
        lambda a: two_regions.get_slice(a, 4),
        lambda a: two_regions.read_into(a, bytearray(4)),
        lambda a: two_regions.write(a, b"1234"),
        lambda a: two_regions.read_some(a, 4),
        lambda a: two_regions.fetch_or(a, 4, 1),
        lambda a: two_regions.load(a, 4),
        lambda a: two_regions.fill(a, 4),
        lambda a: two_regions.copy_within(a, 0x10000, 4),
    ]
    for call in calls:
        for addr in (-1, TOP):
            with pytest.raises(InvalidGuestAddressError, match=r"address must be in 0 \.\. 2\^64 - 1"):
                call(addr)
    with pytest.raises(InvalidGuestAddressError, match="wraps around"):
        two_regions.read(0x10000, TOP)
    with pytest.raises(InvalidGuestAddressError, match="wraps around"):
        two_regions.mark_dirty(0x10000, TOP)
    with pytest.raises(ValueError, match="value is -0x1"):
        two_regions.compare_exchange(0x10000, 4, -1, 0)
    with pytest.raises(ValueError, match="size is 16, must be 1, 2, 4 or 8"):
        two_regions.load(0x10000, 16)
    with pytest.raises(ValueError, match="fill byte is 256"):
        two_regions.fill(0x10000, 4, 256)
    assert two_regions.take_dirty() == ()


def test_an_emptied_table_is_that_of_a_child(two_regions):
    """What a forked child sees, in this process: every call says so, and reading again finds nothing."""
    two_regions.access_map().empty()
    vector = AccessVector([0x10000], 4)
    for call in (
        lambda: two_regions.read(0x10000, 1 << 17),
        lambda: two_regions.write_some(0x10000, b"x"),
        lambda: two_regions.load_vector(vector),
        lambda: two_regions.gather([(0x10000, 4)]),
        lambda: two_regions.get_slice(0x10000, 4),
    ):
        with pytest.raises(ForkedError, match="MADV_DONTFORK"):
            call()
