"""The lenient way of walking: what breaks a rule ends the chain, as in the Rust crate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, DriverError, Queue, Reason
from virtio_queue.testing import Lockstep, RingLayout, TwinQueue
from virtio_queue.testing.strategies import hostile_rings
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

DATA = 0x1_2000  # as in conftest
NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE = DATA + 0x100
BUFFER = (DATA, 4, False)
CASES = {
    "next outside": ([(DATA, 4, NEXT, 9)], [], [BUFFER]),
    "loop": ([(DATA, 4, NEXT, 0)], [], [BUFFER] * 4),
    "odd table": ([(DATA, 4, NEXT, 1), (TABLE, 17, INDIRECT, 0)], [], [BUFFER]),
    "empty table": ([(TABLE, 0, INDIRECT, 0)], [], []),
    "table outside": ([(DATA, 4, NEXT, 1), (1 << 60, 16, INDIRECT, 0)], [], [BUFFER]),
    "table in a table": (
        [(TABLE, 32, INDIRECT, 0)],
        [(DATA, 4, NEXT, 1), (TABLE, 16, INDIRECT, 0)],
        [BUFFER],
    ),
    "table and next": ([(TABLE, 16, INDIRECT | NEXT, 1)], [(DATA, 4, 0, 0)], [BUFFER]),
    "longer than the queue": (
        [(TABLE, 96, INDIRECT, 0)],
        [(DATA, 4, NEXT, n + 1) for n in range(6)],
        [BUFFER] * 4,
    ),
    "readable behind writable": (
        [(DATA, 4, NEXT, 1), (DATA, 1, WRITE | NEXT, 2), (DATA, 2, WRITE | NEXT, 3), (DATA, 3, 0, 0)],
        [],
        [BUFFER, (DATA, 3, False), (DATA, 1, True), (DATA, 2, True)],
    ),
}


@pytest.fixture
def lenient(make_bench):
    """A queue of four entries, without indirect tables negotiated."""
    bench = make_bench(4, indirect=False)
    bench.queue.compatible = True
    return bench


@pytest.mark.parametrize("name", CASES)
def test_chain_ends_where_it_breaks(lenient, name):
    """What came before the fault is a chain like any other, and readable buffers come first."""
    rows, table, expected = CASES[name]
    lenient.descriptors(*rows)
    for index, (addr, length, flags, following) in enumerate(table):
        raw = addr.to_bytes(8, "little") + length.to_bytes(4, "little")
        raw += flags.to_bytes(2, "little") + following.to_bytes(2, "little")
        lenient.mem.write(TABLE + 16 * index, raw)
    lenient.announce(0)
    chain = lenient.queue.pop(lenient.mem)
    assert [tuple(segment) for segment in chain] == expected
    lenient.queue.add_used(lenient.mem, chain.head, 0)
    assert lenient.queue.in_flight == 0


def test_what_is_still_reported(lenient):
    """A buffer outside memory (whose chain can be completed), and what breaks the ring."""
    lenient.descriptors((DATA, 4, NEXT, 1), (1 << 60, 4, 0, 0))
    lenient.announce(0)
    with pytest.raises(DriverError) as caught:
        lenient.queue.pop(lenient.mem)
    assert (caught.value.reason, caught.value.head) == (Reason.ADDRESS, 0)
    lenient.announce(7)
    with pytest.raises(DriverError) as caught:
        lenient.queue.pop(lenient.mem)
    assert caught.value.reason is Reason.HEAD


@pytest.mark.parametrize("whole", [False, True])
def test_sum_of_2_to_the_32(queue_class, whole):
    """2.7.5.2 allows it; the crate adds in 32 bits and ends before the buffer that reaches it."""
    mem = GuestMemoryMmap.from_ranges([(0, 0x1_0000), (0x1_0000_0000, 1 << 33)])
    layout = RingLayout.at(0, 4)
    queue = queue_class(4)
    layout.configure(queue)
    queue.compatible = not whole
    mem.write(0, (1 << 32).to_bytes(8, "little") + (0xFFFF_FFFF).to_bytes(4, "little") + b"\1\0\1\0")
    mem.write(16, (1 << 32).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"\0\0\0\0")
    mem.store(layout.avail_ring + 2, 2, 1)
    batch = ChainBatch(4, 8)
    assert queue.pop_batch(mem, batch) == 1
    assert len(batch.segments(0)) == (2 if whole else 1)


def test_the_choice_is_saved(queue_class):
    """It survives a restore and a reset of the ring, and ends with a reset."""
    queue = queue_class(4)
    queue.compatible = True
    queue.reset_ring()
    assert queue_class.from_state(queue.state()).compatible is True
    queue.reset()
    assert queue.compatible is False


@given(
    ring=hostile_rings((0x1000, 0x3000), 0x3F80),
    size=st.sampled_from((8, 16)),
    indirect=st.booleans(),
    chains=st.integers(1, 8),
)
def test_core_and_twin_agree(ring, size, indirect, chains):
    """Under rings of hostile drivers; broken chains are those with a buffer outside memory only."""
    layout = RingLayout.at(0x1000, size)
    memories = tuple(GuestMemoryMmap([guarded_region(0x1000, 0x3000)]) for _ in range(2))
    queues = (Queue(64), TwinQueue(64))
    for queue, mem in zip(queues, memories, strict=True):
        ring.install(mem, layout, 0x3F80)
        layout.configure(queue, indirect=indirect)
        queue.compatible = True
        if ring.start:
            mem.store(layout.avail_ring + 2, 2, (ring.avail_idx - ring.start) & 0xFFFF)
    pair = Lockstep(queues, memories, [(0x1000, 0x3000)])
    for _ in range(size + 2):
        batch = pair.pop_batch(chains, size + 3)
        if isinstance(batch, DriverError) or len(batch) == 0:
            break
        assert {error.reason for error in batch.errors()} <= {Reason.ADDRESS, Reason.READ_ONLY}
        pair.call(lambda queue, mem, batch=batch: queue.complete_batch(mem, batch))
    assert isinstance(batch, DriverError) or len(batch) == 0
