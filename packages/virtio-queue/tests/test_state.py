"""Saved state: complete, checked, and enough to go on."""

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from virtio_queue import DriverError, HeldChain, InvalidStateError, Queue, QueueState, Reason
from virtio_queue.testing import Lockstep, TwinQueue
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

U64 = st.integers(0, (1 << 64) - 1)
U16 = st.integers(0, 0xFFFF)


@st.composite
def _states(draw):
    max_size = 1 << draw(st.integers(0, 15))
    next_used = draw(U16)
    return QueueState(
        max_size=max_size,
        size=draw(U16),
        ready=draw(st.booleans()),
        desc_table=draw(U64),
        avail_ring=draw(U64),
        used_ring=draw(U64),
        event_idx=draw(st.booleans()),
        indirect=draw(st.booleans()),
        next_avail=(next_used + draw(st.integers(0, max_size))) & 0xFFFF,
        next_used=next_used,
        num_added=draw(st.integers(0, 65536)),
        broken=draw(st.sampled_from((None, Reason.AVAILABLE_INDEX, Reason.HEAD))),
    )


@given(state=_states())
def test_round_trip(state):
    """Whatever state a queue can be in survives, in both implementations."""
    assert Queue.from_state(state).state() == state
    assert TwinQueue.from_state(state).state() == state
    assert QueueState(**attrs.asdict(state)) == state


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_size", 0, "max_size is 0, must be an integer from 1 to 32768"),
        ("max_size", 65536, "max_size is 65536"),
        ("size", 65536, "size is 65536, must be an integer from 0 to 0xffff"),
        ("size", True, "size is True"),
        ("desc_table", 1 << 64, "desc_table is 18446744073709551616"),
        ("avail_ring", -1, "avail_ring is -1"),
        ("used_ring", "0", "used_ring is '0'"),
        ("ready", 1, "ready is 1, must be True or False"),
        ("event_idx", None, "event_idx is None"),
        ("indirect", 0, "indirect is 0"),
        ("next_avail", 65536, "next_avail is 65536"),
        ("next_avail", 9, r"next_avail is 9, must be at most max_size \(8\) after next_used, not 9"),
        ("next_used", 1, "next_avail is 0, must be at most max_size"),
        ("num_added", 65537, "num_added is 65537"),
        ("broken", Reason.LOOP, "must be None or one of AVAILABLE_INDEX, HEAD, BUFFER_ID, ENDLESS"),
        ("version", 1, "version is 1, must be 2"),
    ],
)
def test_impossible_states_are_refused(field, value, message):
    """The error names field, value and rule, and no object is made."""
    with pytest.raises(InvalidStateError, match=message) as caught:
        QueueState(**{"max_size": 8, "size": 8, field: value})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([{"head": 0}], "must be chains with head, descriptors and order"),
        (3, "must be chains with head, descriptors and order"),
        ([HeldChain(65536, 1, 0)], "must be integers: head to 0xffff, descriptors from 1 to 8"),
        ([HeldChain(0, 0, 0)], "descriptors from 1 to 8"),
        ([HeldChain(0, 9, 0)], "descriptors from 1 to 8"),
        ([HeldChain(0, True, 0)], "must be integers"),
        ([HeldChain(0, 1, 1 << 32)], "order to 0xffffffff"),
        ([HeldChain(1, 1, 0), HeldChain(1, 1, 1)], "must be chains with different heads"),
        ([HeldChain(1, 8, 0), HeldChain(2, 1, 1)], r"at most max_size \(8\) descriptors together, not 9"),
        ([HeldChain(1, 1, 5)], "in the order of their pops, all before 5"),
        ([HeldChain(1, 1, 4), HeldChain(2, 1, 3)], "in the order of their pops"),
        ([HeldChain(1, 1, 4), HeldChain(2, 1, 4)], "in the order of their pops"),
    ],
)
def test_impossible_chains_of_a_packed_ring_are_refused(held, message):
    """What is in flight decides which descriptors a completion skips: nothing about it is believed."""
    with pytest.raises(InvalidStateError, match=message):
        QueueState(max_size=8, size=8, packed=True, popped=5, held=held)


HELD = st.builds(HeldChain, st.integers(0, 6), st.integers(0, 5), st.integers(0, 7))


@given(
    held=st.lists(HELD, max_size=4),
    popped=st.integers(0, 7),
    places=st.tuples(U16, U16),
    size=st.integers(1, 9),
)
@example(held=[HeldChain(3, 2, 1)], popped=2, places=(0x8002, 0x8000), size=4)
def test_any_packed_state_is_refused_or_safe(held, popped, places, size):
    """A state from a file: what is accepted is kept, is completed once at most, and leads nowhere else."""
    mem = GuestMemoryMmap([guarded_region(0x1000, 0x1000)])
    options = {"desc_table": 0x1000, "avail_ring": 0x1100, "used_ring": 0x1104, "ready": True, "packed": True}
    try:
        state = QueueState(
            max_size=8,
            size=size,
            next_avail=places[0],
            next_used=places[1],
            popped=popped,
            held=held,
            **options,
        )
    except InvalidStateError:
        return
    pair = Lockstep(
        (Queue.from_state(state), TwinQueue.from_state(state)),
        (mem, GuestMemoryMmap([guarded_region(0x1000, 0x1000)])),
        [(0x1000, 0x1000)],
    )
    assert pair.queues[0].state() == state
    for chain in held:
        pair.call(lambda queue, mem, head=chain.head: queue.add_used(mem, head, 1))
        pair.call(lambda queue, mem, head=chain.head: queue.add_used(mem, head, 1))
    pair.pop_batch(4, 16)
    assert pair.queues[0].in_flight <= len(held)


def test_restoring_checks_the_rings_when_given_memory(bench):
    """A snapshot for another machine is refused before the device runs."""
    state = attrs.evolve(bench.queue.state(), used_ring=0x10_0000)
    with pytest.raises(DriverError, match="device area outside guest memory"):
        type(bench.queue).from_state(state, bench.mem)
    assert not type(bench.queue).from_state(state).is_valid(bench.mem)


def test_a_broken_queue_stays_broken(bench):
    """Saving and restoring is no way around the fault."""
    bench.raw.set_avail_idx(9)
    with pytest.raises(DriverError):
        bench.queue.pop(bench.mem)
    restored = type(bench.queue).from_state(bench.queue.state(), bench.mem)
    assert restored.enable_notification(bench.mem) is False
    with pytest.raises(DriverError, match=r"^available index ran ahead$") as caught:
        restored.pop(bench.mem)
    assert caught.value.value is None


def test_work_goes_on_across_a_restore(bench):
    """Chains in flight are completed by the queue that comes after."""
    driver = bench.driver()
    heads = [driver.request([], [4]) for _ in range(3)]
    chain = bench.queue.pop(bench.mem)
    restored = type(bench.queue).from_state(bench.queue.state(), bench.mem)
    restored.add_used(bench.mem, chain.head, 4)
    rest = [restored.pop(bench.mem).head for _ in range(2)]
    assert [chain.head, *rest] == heads
    assert [done.head for done in driver.completed()] == heads[:1]
