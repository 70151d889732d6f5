"""The dirty bitmap against a set of page numbers."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import AtomicBitmap, GuestMemoryMmap, InvalidRegionError
from vmm_memory.testing import guarded_region


def pages_of(bitmap):
    """The dirty page numbers, by asking for each."""
    return {page for page in range(len(bitmap)) if bitmap.is_bit_set(page)}


class AgainstSet(RuleBasedStateMachine):
    """Every operation on the bitmap and on a set."""

    @initialize(size=st.integers(1, 300), shift=st.integers(0, 4))
    def begin(self, size, shift):
        """Sizes that are no multiple of the page, page sizes down to a byte."""
        self.bitmap = AtomicBitmap(size, 1 << shift)
        self.size, self.page, self.model = size, 1 << shift, set()

    def touched(self, offset, size):
        """The pages that a byte range touches."""
        return {byte // self.page for byte in range(offset, min(offset + size, self.size))}

    @rule(offset=st.integers(0, 320), size=st.one_of(st.integers(0, 320), st.just((1 << 64) - 1)))
    def set_range(self, offset, size):
        """Ranges may be empty or leave the end."""
        self.bitmap.set_addr_range(offset, size)
        self.model |= self.touched(offset, size)

    @rule(offset=st.integers(0, 320), size=st.integers(0, 320))
    def reset_range(self, offset, size):
        """Clearing is by whole pages, too."""
        self.bitmap.reset_addr_range(offset, size)
        self.model -= self.touched(offset, size)

    @rule(page=st.integers(0, 320), value=st.booleans())
    def one_bit(self, page, value):
        """Single pages; those past the end do not exist."""
        (self.bitmap.set_bit if value else self.bitmap.reset_bit)(page)
        if page < len(self.bitmap):
            (self.model.add if value else self.model.discard)(page)

    @rule(data=st.data(), src_shift=st.integers(0, 5))
    def merge(self, data, src_shift):
        """A log of another page size marks every page it may mean; its bits past the end mean nothing."""
        pages = -(-self.size >> src_shift)
        log = data.draw(st.binary(min_size=-(-pages // 64) * 8, max_size=-(-pages // 64) * 8))
        self.bitmap.merge(log, 1 << src_shift)
        for page in range(pages):
            if log[page // 8] >> (page % 8) & 1:
                self.model |= self.touched(page << src_shift, 1 << src_shift)

    @rule()
    def take(self):
        """What comes out is what was in, and nothing stays."""
        assert pages_of(self.bitmap.get_and_reset()) == self.model
        self.model = set()

    @invariant()
    def equal(self):
        """Bits, count, ranges and bytes all tell the same."""
        if not hasattr(self, "bitmap"):
            return
        assert pages_of(self.bitmap) == self.model
        assert self.bitmap.count() == len(self.model)
        ranges = list(self.bitmap.ranges())
        assert {
            byte // self.page for start, size in ranges for byte in range(start, start + size)
        } == self.model
        assert all(a + n < b for (a, n), (b, _) in pairwise(ranges))
        assert all(start + size <= self.size for start, size in ranges)
        words = int.from_bytes(self.bitmap.to_bytes(), "little")
        assert words == sum(1 << page for page in self.model)


TestAgainstSet = AgainstSet.TestCase


@given(pages=st.sets(st.integers(0, 4095), max_size=50))
def test_merging_another_bitmap(pages):
    """An AtomicBitmap merges like the log it would write."""
    source, target = AtomicBitmap(4096 * 4096), AtomicBitmap(4096 * 4096)
    for page in pages:
        source.set_bit(page)
    target.merge(source)
    assert pages_of(target) == pages


def test_many_ranges_cross_the_batch_size():
    """More runs than one C call returns are all yielded."""
    bitmap = AtomicBitmap(2000 * 4096)
    for page in range(0, 2000, 2):
        bitmap.set_bit(page)
    assert [start // 4096 for start, _ in bitmap.ranges()] == list(range(0, 2000, 2))


def test_concurrent_writers_lose_nothing():
    """Bits set by four threads while a fifth harvests: each comes out exactly once, none is left over."""
    bitmap = AtomicBitmap(4 * 5000 * 4096)
    taken = []
    done = threading.Event()

    def writer(start):
        for page in range(start, bitmap.byte_size // 4096, 4):
            bitmap.set_bit(page)

    def harvester():
        while not done.is_set():
            taken.extend(
                page
                for start, size in bitmap.get_and_reset().ranges()
                for page in range(start, start + size, 4096)
            )

    threads = [threading.Thread(target=writer, args=(start,)) for start in range(4)]
    collector = threading.Thread(target=harvester)
    collector.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    collector.join()
    taken.extend(
        page for start, size in bitmap.get_and_reset().ranges() for page in range(start, start + size, 4096)
    )
    assert sorted(taken) == [page * 4096 for page in range(len(bitmap))]


def test_concurrent_memory_writes_mark_all_pages():
    """Two threads that write alternate pages through the map leave every page dirty (they share words)."""
    memory = GuestMemoryMmap([guarded_region(0, 128 * 4096)])

    def writer(start):
        for page in range(start, 128, 2):
            memory.write(page * 4096 + 5, b"x" * 100)

    threads = [threading.Thread(target=writer, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.take_dirty() == ((0, 128 * 4096),)


@pytest.mark.parametrize(
    ("size", "page", "message"),
    [
        (0, 4096, "byte_size is 0x0"),
        (4096, 3000, "page_size is 0xbb8"),
        (4096, 1 << 64, "page_size is 0x10000000000000000"),
        (1 << 64, 4096, "byte_size is 0x1000000000000000"),
    ],
)
def test_impossible_shapes(size, page, message):
    """Sizes out of range are named."""
    with pytest.raises(InvalidRegionError, match=message):
        AtomicBitmap(size, page)


def test_log_of_the_wrong_length():
    """A log for another number of pages is refused, and nothing is merged."""
    bitmap = AtomicBitmap(65 * 4096)
    with pytest.raises(InvalidRegionError, match="dirty log page_size is 0x10000000000000000"):
        AtomicBitmap(65 * 4096).merge(bytes(8), page_size=1 << 64)
    with pytest.raises(
        InvalidRegionError, match="dirty log has 8 bytes, must have 16 for 65 pages of 0x1000"
    ):
        bitmap.merge(b"\xff" * 8)
    with pytest.raises(InvalidRegionError, match="dirty range -0x1"):
        bitmap.set_addr_range(-1, 4)
    assert bitmap.count() == 0
