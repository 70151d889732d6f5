"""Who must be told of what: VIRTIO 1.2, 2.7.7 and 2.7.10, on both implementations."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import Queue
from virtio_queue.testing import Lockstep, RawRings, RingLayout, TwinQueue
from virtio_queue.testing.strategies import indices
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region


def test_interrupt_flag_is_respected(bench):
    """Without event index VIRTQ_AVAIL_F_NO_INTERRUPT silences the device; so does nothing used."""
    bench.descriptors((bench.DATA, 8))
    for flags, expected in ((0, True), (1, False), (2, True)):
        bench.raw.set_avail_flags(flags)
        bench.announce(0)
        chain = bench.queue.pop(bench.mem)
        bench.queue.add_used(bench.mem, chain.head, 0)
        assert bench.queue.needs_notification(bench.mem) is expected
        assert bench.queue.needs_notification(bench.mem) is False


def test_kick_flag(bench):
    """Without event index the used flags carry the wish, and enabling looks at the ring again."""
    bench.queue.disable_notification(bench.mem)
    assert bench.raw.used_flags() == 1
    assert bench.queue.enable_notification(bench.mem) is False
    assert bench.raw.used_flags() == 0
    bench.announce(0)
    assert bench.queue.enable_notification(bench.mem) is True


def test_kick_event(make_bench):
    """With event index avail_event names the next chain to be popped; disabling writes nothing."""
    bench = make_bench(event_idx=True)
    bench.descriptors((bench.DATA, 8))
    bench.announce(0, 0, 0)
    bench.queue.pop(bench.mem)
    assert bench.queue.enable_notification(bench.mem) is True
    assert (bench.raw.avail_event(), bench.raw.used_flags()) == (1, 0)
    memory = bench.mem.read(bench.BASE, bench.ROOM)
    bench.queue.disable_notification(bench.mem)
    assert bench.mem.read(bench.BASE, bench.ROOM) == memory


@pytest.mark.parametrize("added", [1, 2, 4])
def test_every_distance_of_the_used_event(make_bench, added):
    """The driver is told exactly when next_used passed its event since the last decision."""
    bench = make_bench(event_idx=True)
    base = bench.queue.state()
    events = [*range(64), *range(0x7FF0, 0x8010), *range(0xFFC0, 0x10000)]
    for event in events:
        used = 2
        state = attrs.evolve(base, next_avail=used, next_used=used, num_added=added)
        queue = type(bench.queue).from_state(state)
        bench.raw.set_used_event(event)
        passed = any((used - back - event) & 0xFFFF == 0 for back in range(1, added + 1))
        assert queue.needs_notification(bench.mem) is passed


def test_no_event_is_lost_after_a_whole_lap(make_bench):
    """After 65536 elements without a decision every event was passed."""
    bench = make_bench(event_idx=True)
    state = attrs.evolve(bench.queue.state(), num_added=65536)
    for event in (0, 1, 0x8000, 0xFFFF):
        bench.raw.set_used_event(event)
        assert type(bench.queue).from_state(state).needs_notification(bench.mem) is True


def test_completion_counts_across_calls(make_bench):
    """Elements published without a decision count in the next one, also after a restore."""
    bench = make_bench(event_idx=True)
    bench.descriptors((bench.DATA, 8))
    bench.announce(0, 0, 0)
    bench.raw.set_used_event(0)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 3
    bench.queue.add_used(bench.mem, 0, 0)
    bench.queue.add_used(bench.mem, 0, 0)
    restored = type(bench.queue).from_state(bench.queue.state(), bench.mem)
    assert restored.needs_notification(bench.mem) is True
    restored.add_used(bench.mem, 0, 0)
    assert restored.needs_notification(bench.mem) is False


@given(
    used=indices(),
    ahead=st.integers(0, 8),
    added=st.one_of(st.integers(0, 8), st.integers(0, 65536)),
    event=indices(),
    flags=st.integers(0, 3),
    event_idx=st.booleans(),
    avail=indices(),
)
def test_decisions_agree_with_the_twin(used, ahead, added, event, flags, event_idx, avail):
    """The core and the twin decide alike wherever indices, events and flags stand."""
    layout = RingLayout.at(0x1000, 8)
    memories = [GuestMemoryMmap([guarded_region(0x1000, 0x1000)]) for _ in range(2)]
    fresh = Queue(8)
    layout.configure(fresh, event_idx=event_idx)
    state = attrs.evolve(fresh.state(), next_avail=(used + ahead) & 0xFFFF, next_used=used, num_added=added)
    for mem in memories:
        raw = RawRings(mem, layout)
        raw.set_used_event(event)
        raw.set_avail_flags(flags)
        raw.set_avail_idx(avail)
    pair = Lockstep(
        (Queue.from_state(state), TwinQueue.from_state(state)), tuple(memories), [(0x1000, 0x1000)]
    )
    decision = pair.call(lambda queue, mem: queue.needs_notification(mem))
    if event_idx:
        assert decision is ((used - event - 1) % 65536 < added)
    else:
        assert decision is (added > 0 and not flags & 1)
    assert pair.call(lambda queue, mem: queue.enable_notification(mem)) is (avail != state.next_avail)
    pair.call(lambda queue, mem: queue.disable_notification(mem))
