"""VIRTIO_F_IN_ORDER: chains completed as popped, and one used element for many."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, HeldChain, InvalidStateError, Queue, QueueState
from virtio_queue.testing import Driver, Lockstep, RingLayout, TwinQueue
from vmm_memory import GuestMemoryMmap

BASE, ROOM = 0x1000, 0x8000


def _ring(queue_class, size=8, *, packed, start=0, event_idx=False):
    mem = GuestMemoryMmap.from_ranges([(BASE, ROOM)], dirty=True)
    layout = RingLayout.at(BASE, size, packed=packed)
    queue = queue_class(16)
    layout.configure(queue, event_idx=event_idx, indirect=True, in_order=True)
    place = layout.position(start)
    queue = queue_class.from_state(attrs.evolve(queue.state(), next_avail=place, next_used=place), mem)
    arena = (BASE + 0x2000, 0x4000)
    options = {"event_idx": event_idx, "indirect": True, "in_order": True}
    return mem, queue, Driver(mem, layout, arena=arena, start=start, **options)


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def ring(request, queue_class):
    """A memory, a queue of eight and a driver, in each format."""
    return _ring(queue_class, packed=request.param)


def _used_elements(driver, mem):
    """How many used elements the device has written since the ring was zeroed."""
    if driver.layout.packed:
        slots = range(driver.layout.size)
        return sum(driver.raw.descriptor(slot)[3] & 0x8080 == 0x8080 for slot in slots)
    return sum(driver.raw.used_element(slot) != (0, 0) for slot in range(driver.layout.size))


def test_one_element_speaks_for_many(ring):
    """A chain that was not used completely ends a group; the rest follows with the last one."""
    mem, queue, driver = ring
    heads = [driver.request([], [4]) for _ in range(6)]
    batch = ChainBatch(8, 16)
    assert queue.pop_batch(mem, batch) == 6
    for index, written in enumerate((4, 4, 3, 4, 4, 1)):
        batch.set_written(index, written)
    assert queue.complete_batch(mem, batch) is True
    assert _used_elements(driver, mem) == 2
    done = list(driver.completed())
    assert [(one.head, one.written) for one in done] == list(zip(heads, (4, 4, 3, 4, 4, 1), strict=True))
    assert (queue.in_flight, queue.counters.chains) == (0, 6)
    assert driver.last_used == queue.next_used == driver.next_avail


def test_broken_chain_is_not_spoken_for(ring):
    """Its 0 bytes are told, or the driver would take its buffers for used."""
    mem, queue, driver = ring
    layout = driver.layout
    for _ in range(3):
        driver.request([b"x"])
    mem.store(layout.desc_table + 16, 8, 1 << 60)  # the address of the second
    batch = ChainBatch(8, 16)
    assert queue.pop_batch(mem, batch) == 3
    assert len(batch.errors()) == 1
    queue.complete_batch(mem, batch)
    if layout.packed:
        assert _used_elements(driver, mem) == 2
    else:
        assert [driver.raw.used_element(slot) for slot in range(3)] == [(1, 0), (0, 0), (2, 0)]


def test_other_orders_are_refused(ring):
    """Nothing is published, and the message names whose turn it is."""
    mem, queue, driver = ring
    heads = [driver.request([], [1]) for _ in range(3)]
    batch = ChainBatch(8, 16)
    queue.pop_batch(mem, batch)
    before = mem.read(BASE, ROOM)
    message = f"chain {heads[1]} is not the next to complete in order, chain {heads[0]} is"
    with pytest.raises(ValueError, match=message):
        queue.add_used(mem, heads[1], 0)
    for order in ((0, 2), (1, 0), (2, 1, 0)):
        batch.clear()
        for index in order:
            batch.append(heads[index])
        with pytest.raises(ValueError, match="is not the next to complete in order"):
            queue.complete_batch(mem, batch)
    assert (mem.read(BASE, ROOM), queue.in_flight) == (before, 3)
    for head in heads:
        queue.add_used(mem, head, 1)
    assert len(list(driver.completed())) == 3
    with pytest.raises(ValueError, match=r"in flight"):
        queue.add_used(mem, heads[0], 1)


def test_saved_in_the_middle(ring, queue_class):
    """The order survives, given-back chains included."""
    mem, queue, driver = ring
    heads = [driver.request([], [1]) for _ in range(4)]
    for _ in heads:
        queue.pop(mem)
    queue.add_used(mem, heads[0], 1)
    queue.undo_pop(1)
    state = queue.state()
    assert [held.head for held in state.held] == heads[1:3]
    restored = queue_class.from_state(QueueState(**attrs.asdict(state)), mem)
    assert restored.state() == state
    assert restored.pop(mem).head == heads[3]
    for head in heads[1:]:
        restored.add_used(mem, head, 1)
    assert [done.head for done in driver.completed()] == heads


def test_states_that_cannot_be():
    """A split ring knows its chains by their available index, and only with this feature."""
    with pytest.raises(InvalidStateError, match="1 chains of 1 descriptor"):
        QueueState(max_size=4, size=4, in_order=True, next_avail=1)
    with pytest.raises(InvalidStateError, match="0 chains of 1 descriptor"):
        QueueState(max_size=4, size=4, next_avail=1, held=[HeldChain(0, 1, 0)])


def test_cannot_change_under_chains(ring):
    """The order of those in flight would not be known; a reset ends it, a reset of the ring does not."""
    mem, queue, driver = ring
    driver.request([], [1])
    queue.pop(mem)
    with pytest.raises(ValueError, match="in_order cannot become False with 1 chains in flight"):
        queue.in_order = False
    queue.reset_ring()
    assert queue.in_order is True
    queue.in_order = True
    queue.reset()
    assert queue.in_order is False


@given(
    packed=st.booleans(),
    size=st.sampled_from((1, 2, 4, 8)),
    start=st.integers(0, 40) | st.integers(65520, 65540),
    rounds=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.binary(max_size=5)), max_size=20),
    event_idx=st.booleans(),
)
def test_core_twin_and_driver_agree(packed, size, start, rounds, event_idx):
    """Whatever is written into which chain, the driver gets each once, in order, with its length."""
    sides = [_ring(cls, size, packed=packed, start=start, event_idx=event_idx) for cls in (Queue, TwinQueue)]
    memories, queues, drivers = zip(*sides, strict=True)
    pair = Lockstep(queues, memories, [(BASE, ROOM)])
    expected = []
    for count, chains, lengths in rounds:
        for _ in range(count):
            for driver in drivers:
                if driver.free_descriptors:
                    driver.request([], [3], indirect=True)
        batch = pair.pop_batch(chains + 1, 16)
        assert isinstance(batch, ChainBatch)
        for index, record in enumerate(batch.records()):
            written = (lengths[index] if index < len(lengths) else 3) % 4
            batch.set_written(index, written)
            expected.append((record[2], written))
        pair.call(lambda queue, mem, batch=batch: queue.complete_batch(mem, batch))
        left, right = (list(driver.completed()) for driver in drivers)
        assert left == right
        assert [(done.head, done.written) for done in left] == expected
        expected.clear()
