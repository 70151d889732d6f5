"""The strategies give what their names promise, and reach the interesting corners."""

from collections import Counter

import attrs
from hypothesis import given, settings
from virtio_queue import DriverError, Reason
from virtio_queue.testing import RingLayout, TwinQueue
from virtio_queue.testing.strategies import hostile_rings, indices, mutations, queue_sizes, segment_lists
from vmm_memory.testing import ByteArrayMemory

AREA = (0x1000, 0x1000)


@given(size=queue_sizes(), index=indices())
def test_sizes_and_indices(size, index):
    """Powers of two up to 32768; 16-bit indices."""
    assert size.bit_count() == 1
    assert size <= 32768
    assert 0 <= index <= 65535


@given(segments=segment_lists(AREA, 6))
def test_segments_are_legal(segments):
    """Inside the area, readable before writable."""
    assert 1 <= len(segments) <= 6
    assert all(AREA[0] <= s.addr and s.addr + s.len <= sum(AREA) for s in segments)
    assert [s.writable for s in segments] == sorted(s.writable for s in segments)


@given(mutation=mutations(0x4000))
def test_mutations_stay_in_the_rings(mutation):
    """A mutation beyond the rings does nothing."""
    mem, layout = ByteArrayMemory([AREA]), RingLayout.at(0x1000, 4)
    mutation.apply(mem, layout)
    assert mem.read(layout.end, 0x2000 - layout.end) == bytes(0x2000 - layout.end)


def _outcomes(ring):
    mem, layout, queue = ByteArrayMemory([AREA]), RingLayout.at(0x1000, 8), TwinQueue(8)
    ring.install(mem, layout, 0x1800)
    layout.configure(queue, indirect=True)
    state = attrs.evolve(queue.state(), next_avail=ring.start, next_used=ring.start)
    queue = TwinQueue.from_state(state)
    for _ in range(9):
        try:
            chain = queue.pop(mem)
        except DriverError as error:
            yield error.reason
        else:
            yield "nothing" if chain is None else "chain"


def test_hostile_rings_reach_every_rule():
    """The usual rules of chains and rings get broken often enough, and good chains come too."""
    found = Counter()

    @settings(max_examples=300, database=None, deadline=None, derandomize=True)
    @given(ring=hostile_rings(AREA, 0x1800))
    def collect(ring):
        found.update(set(_outcomes(ring)))

    collect()
    rare = {
        Reason.INDEX,
        Reason.LOOP,
        Reason.INDIRECT_NESTED,
        Reason.INDIRECT_WITH_NEXT,
        Reason.TABLE_SIZE,
        Reason.TABLE_ADDRESS,
        Reason.ORDER,
        Reason.ADDRESS,
        Reason.AVAILABLE_INDEX,
        Reason.HEAD,
        "chain",
    }
    assert rare <= set(found), found
