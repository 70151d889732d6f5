"""Maps as an outside package may make them: regions of any size, at any host address."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, DriverError, Queue, Reason, Segment
from virtio_queue.testing import Driver, RingLayout
from vmm_memory import GuestMemoryMmap
from vmm_memory._core import ffi, lib

BASE, ROOM, SIZE = 0x1000, 0x1000, 4
DATA = BASE + 0x800


@attrs.frozen
class View:
    """What `access_map` returns."""

    map: object
    translated: bool = False


class ForeignMemory:
    """Memory in pieces side by side, (start, distance of its host address from a multiple of 16) each."""

    def __init__(self, content, pieces):
        self._blocks, rows = [], []
        ends = [start for start, _ in pieces[1:]] + [BASE + len(content)]
        for (start, skew), end in zip(pieces, ends, strict=True):
            block = ffi.new("uint8_t[]", end - start + 32)
            host = ffi.cast("uint8_t *", (int(ffi.cast("uintptr_t", block)) + 15 & ~15) + skew)
            ffi.memmove(host, content[start - BASE : end - BASE], end - start)
            self._blocks.append((block, host, end - start))
            rows.append({"base": start, "size": end - start, "host": host})
        self._table = ffi.new("struct vmm_region[]", rows)
        self._map = ffi.new(
            "struct vmm_map *", {"abi": lib.VMM_MAP_ABI, "count": len(rows), "regions": self._table}
        )

    def access_map(self):
        """The map, as `Queue` asks for it."""
        return View(self._map)

    def content(self):
        """All bytes, in order."""
        return b"".join(bytes(ffi.buffer(host, size)) for _, host, size in self._blocks)


def prepared(packed, event_idx, chains=3):
    """A queue, its layout, and plain memory in which so many chains wait."""
    memory = GuestMemoryMmap.from_ranges([(BASE, ROOM)])
    layout = RingLayout.at(BASE, SIZE, packed=packed)
    driver = Driver(memory, layout, event_idx=event_idx)
    for number in range(chains):
        driver.add([Segment(DATA + 16 * number, 8, True)])
    queue = Queue(SIZE)
    layout.configure(queue, event_idx=event_idx)
    return queue, layout, memory


def complete(queue, memory, count=2):
    """Pop so many chains from plain memory; the batch that completes them."""
    batch = ChainBatch(count, SIZE)
    assert queue.pop_batch(memory, batch) == count
    for index in range(count):
        batch.set_written(index, 1)
    return batch


def call(name, queue, memory, batch):
    """One operation."""
    match name:
        case "pop":
            return queue.pop(memory)
        case "add_used":
            return queue.add_used(memory, batch.records()[0][2], 1)
        case "complete_batch":
            return queue.complete_batch(memory, batch)
    return getattr(queue, name)(memory)


# (operation, event index, part of the ring, offset of the word in it, its bytes)
SPLIT = [
    ("pop", False, 1, 2, 2),
    ("pop", False, 1, 4, 2),
    ("add_used", False, 2, 4, 4),
    ("add_used", False, 2, 8, 4),
    ("add_used", False, 2, 2, 2),
    ("complete_batch", False, 2, 4, 4),
    ("complete_batch", False, 2, 12, 4),
    ("complete_batch", False, 2, 2, 2),
    ("complete_batch", False, 1, 0, 2),
    ("needs_notification", False, 1, 0, 2),
    ("needs_notification", True, 1, 4 + 2 * SIZE, 2),
    ("enable_notification", False, 2, 0, 2),
    ("enable_notification", True, 2, 4 + 8 * SIZE, 2),
    ("enable_notification", False, 1, 2, 2),
    ("disable_notification", False, 2, 0, 2),
]
PACKED = [
    ("pop", False, 0, 16 * 2 + 14, 2),
    ("add_used", False, 0, 8, 4),
    ("add_used", False, 0, 12, 2),
    ("add_used", False, 0, 14, 2),
    ("complete_batch", False, 0, 8, 4),
    ("complete_batch", False, 0, 16 + 12, 2),
    ("complete_batch", False, 1, 0, 4),
    ("needs_notification", False, 1, 0, 4),
    ("enable_notification", False, 2, 0, 4),
    ("enable_notification", True, 2, 0, 4),
    ("enable_notification", False, 0, 16 * 2 + 14, 2),
    ("disable_notification", False, 2, 0, 4),
]


@pytest.mark.parametrize("skew", [0, 1])
@pytest.mark.parametrize(
    ("packed", "row"), [*((False, row) for row in SPLIT), *((True, row) for row in PACKED)]
)
def test_a_word_that_no_single_access_reaches(packed, row, skew):
    """At an odd host address: the ring is unusable, the part is named, the queue stays as it was.

    In regions that divide no group of four bytes the ring is as good as any other.
    """
    name, event_idx, part, offset, size = row
    queue, layout, memory = prepared(packed, event_idx)
    batch = ChainBatch(1, SIZE) if not packed and name == "pop" else complete(queue, memory)
    word = (layout.desc_table, layout.avail_ring, layout.used_ring)[part] + offset
    start, end = (word, word + size) if skew else (word & ~3, (word | 3) + 1)
    pieces = [(BASE, 0), (start, start % 16 + skew), (end, end % 16)]
    foreign = ForeignMemory(memory.read(BASE, ROOM), pieces if start > BASE else pieces[1:])
    before = queue.state()
    if skew == 0:
        plain = Queue.from_state(before)
        assert str(call(name, queue, foreign, batch)) == str(call(name, plain, memory, batch))
        assert (queue.state(), foreign.content()) == (plain.state(), memory.read(BASE, ROOM))
        return
    with pytest.raises(DriverError) as caught:
        call(name, queue, foreign, batch)
    assert (caught.value.reason, caught.value.head, caught.value.position) == (
        Reason.RING_ADDRESS,
        None,
        part,
    )
    assert (queue.state(), queue.is_valid(foreign)) == (before, False)


@pytest.mark.parametrize("packed", [False, True])
def test_a_host_address_that_suits_words_of_four_bytes(packed):
    """One region, four bytes off: no access is wider then, and all goes as on plain memory."""
    queue, _layout, memory = prepared(packed, True)
    plain, foreign = Queue.from_state(queue.state()), ForeignMemory(memory.read(BASE, ROOM), [(BASE, 4)])
    results = []
    for side, side_memory in ((queue, foreign), (plain, memory)):
        batch = complete(side, side_memory, 3)
        results.append([batch.segments(0), batch.segments(2), side.complete_batch(side_memory, batch)])
        results[-1].append(side.enable_notification(side_memory))
    assert results[0] == results[1]
    assert (queue.state(), foreign.content()) == (plain.state(), memory.read(BASE, ROOM))


PIECES = st.lists(
    st.tuples(
        st.integers(1, 0x100) | st.sampled_from(range(16, 0x100, 16)), st.sampled_from((0, 0, 2, 4, 8, 1))
    ),
    max_size=6,
    unique_by=lambda piece: piece[0],
)
NAMES = (
    "pop",
    "pop_batch",
    "add_used",
    "complete_batch",
    "needs_notification",
    "enable_notification",
    "disable_notification",
)


@given(
    pieces=PIECES,
    packed=st.booleans(),
    event_idx=st.booleans(),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=8),
)
def test_any_pieces(pieces, packed, event_idx, names):
    """Each operation does as on plain memory, or says that the ring is unusable and does nothing."""
    queue, _layout, memory = prepared(packed, event_idx)
    plain = Queue.from_state(queue.state())
    starts = [(BASE, 0), *((BASE + at, at % 16 + skew) for at, skew in sorted(pieces))]
    foreign = ForeignMemory(memory.read(BASE, ROOM), starts)
    for name in names:
        before, batches, results = queue.state(), [], []
        for side, side_memory in ((queue, foreign), (plain, memory)):
            batch = ChainBatch(2, SIZE)
            if name in ("add_used", "complete_batch"):
                heads = [chain.head for chain in before.held] if packed else list(range(side.in_flight))
                for head in heads[:2]:
                    batch.append(head, [(DATA, 8, True)], written=1)
                if not batch:
                    results.append("nothing")
                    continue
            batches.append(batch)
            try:
                if name == "pop_batch":
                    side.pop_batch(side_memory, batch)
                    results.append(str([batch.records(), [batch.segments(i) for i in range(len(batch))]]))
                else:
                    results.append(str(call(name, side, side_memory, batch)))
            except DriverError as error:
                results.append(error)
        if isinstance(results[0], DriverError):
            assert results[0].reason is Reason.RING_ADDRESS
            assert (queue.state(), queue.is_valid(foreign)) == (before, False)
            return
        assert results[0] == results[1]
        assert (queue.state(), foreign.content()) == (plain.state(), memory.read(BASE, ROOM))
