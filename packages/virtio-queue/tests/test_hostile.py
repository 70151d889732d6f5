"""Rings of hostile drivers: core and twin agree, and memory outside the used ring is never written."""

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, DriverError, Queue
from virtio_queue.testing import Lockstep, RingLayout, TwinQueue
from virtio_queue.testing.strategies import HostileRing, hostile_rings
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

BASE, ROOM, TABLE = 0x1000, 0x3000, 0x3F80  # the tables end with the memory
SIZES = (8, 16, 64)


def _pair(ring, size, event_idx, indirect):
    layout = RingLayout.at(BASE, size)
    memories = tuple(
        GuestMemoryMmap([guarded_region(BASE, 0x1000), guarded_region(BASE + 0x1000, 0x2000)])
        for _ in range(2)
    )
    queues = []
    for cls, mem in zip((Queue, TwinQueue), memories, strict=True):
        ring.install(mem, layout, TABLE)
        queue = cls(64)
        layout.configure(queue, event_idx=event_idx, indirect=indirect)
        queues.append(cls.from_state(_at(queue.state(), ring.start), mem))
        mem.take_dirty()
    return layout, Lockstep(tuple(queues), memories, [(BASE, ROOM)])


def _at(state, start):
    return attrs.evolve(state, next_avail=start, next_used=start)


def _used_part(layout, mem):
    start = layout.used_ring - BASE
    memory = bytearray(mem.read(BASE, ROOM))
    return bytes(memory[:start]) + bytes(memory[layout.end - BASE :])


REGISTERS = st.one_of(
    st.integers(BASE // 16, (BASE + ROOM) // 16).map(lambda line: 16 * line),
    st.integers(BASE - 64, BASE + ROOM + 64),
    st.integers(0, (1 << 64) - 1),
)
LOOP_IN_TABLE = HostileRing(
    descriptors=((TABLE, 128, 4, 0),) + ((0, 0, 0, 0),) * 7,
    tables=((BASE, 1, 1, 0),) + ((0, 0, 0, 0),) * 7,
    heads=(0, 0),
    start=65535,
    avail_idx=1,
    avail_flags=0,
    used_event=0,
)


@given(
    ring=hostile_rings((BASE, ROOM), TABLE),
    size=st.sampled_from(SIZES),
    event_idx=st.booleans(),
    indirect=st.booleans(),
    chains=st.integers(1, 8),
)
@example(ring=LOOP_IN_TABLE, size=8, event_idx=True, indirect=True, chains=2)
def test_batches_agree_with_the_twin(ring, size, event_idx, indirect, chains):
    """Chains, errors, used elements, decisions and memory are equal; the device comes to an end."""
    layout, pair = _pair(ring, size, event_idx, indirect)
    outside = [_used_part(layout, mem) for mem in pair.memories]
    for _ in range(size + 2):
        batch = pair.pop_batch(chains, size + 3)
        if isinstance(batch, DriverError) or len(batch) == 0:
            break
        pair.call(lambda queue, mem, batch=batch: queue.complete_batch(mem, batch))
    assert isinstance(batch, DriverError) or len(batch) == 0
    pair.call(lambda queue, mem: queue.enable_notification(mem))
    assert [_used_part(layout, mem) for mem in pair.memories] == outside
    left, right = (mem.take_dirty() for mem in pair.memories)
    assert left == right


@given(
    ring=hostile_rings((BASE, ROOM), TABLE),
    size=st.sampled_from(SIZES),
    indirect=st.booleans(),
    event_idx=st.booleans(),
)
def test_single_pops_agree_with_batches(ring, size, indirect, event_idx):
    """Chain by chain gives what a batch gives: same heads, same buffers, same faults."""
    _, pair = _pair(ring, size, event_idx, indirect)
    batched = Queue.from_state(pair.queues[0].state())
    batch = ChainBatch(size, 64 * size)
    try:
        batched.pop_batch(pair.memories[0], batch)
    except DriverError as error:
        broken = str(error)
    else:
        broken = "None"
    if not batch:
        assert str(pair.call(lambda queue, mem: queue.pop(mem))) == broken
    for index in range(len(batch)):
        one = pair.call(lambda queue, mem: queue.pop(mem))
        if isinstance(one, DriverError):
            assert (one.head, one.position, -one.reason) == (
                batch.records()[index][2],
                batch.records()[index][1],
                batch.records()[index][4],
            )
        else:
            assert (one.head, one.segments) == (batch.records()[index][2], batch.segments(index))


@given(
    registers=st.lists(REGISTERS, min_size=3, max_size=3),
    size=st.sampled_from((1, 2, 8, 64)) | st.integers(0, 80),
    event_idx=st.booleans(),
)
def test_any_registers_are_safe(registers, size, event_idx):
    """Whatever a driver writes into the registers, overlapping rings included, both sides agree."""
    ring = LOOP_IN_TABLE
    _, pair = _pair(ring, 8, event_idx, True)
    for queue in pair.queues:
        queue.size = size
        queue.desc_table, queue.avail_ring, queue.used_ring = registers
    assert pair.call(lambda queue, mem: queue.is_valid(mem)) in (True, False)
    batch = pair.pop_batch(8, 80)
    if isinstance(batch, ChainBatch):
        pair.call(lambda queue, mem: queue.complete_batch(mem, batch))
    pair.call(lambda queue, mem: queue.enable_notification(mem))
    pair.call(lambda queue, mem: queue.disable_notification(mem))
