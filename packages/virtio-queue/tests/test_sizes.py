"""Real traffic through the smallest and the largest rings of both formats, over every wrap."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_queue import ChainBatch, Queue, Segment
from virtio_queue.testing import Driver, RingLayout, TwinQueue
from virtio_queue.testing.strategies import ring_layouts
from vmm_memory import GuestMemoryMmap

BASE = 0x1_0000
SIZES = [
    (False, 1),
    (False, 2),
    (False, 32768),
    (True, 1),
    (True, 2),
    (True, 3),
    (True, 32767),
    (True, 32768),
]


class Traffic:
    """A driver and a queue of one size, half a ring before all of their counters wrap."""

    def __init__(self, queue_class, layout, *, event_idx):
        size, self.layout = layout.size, layout
        self.buffers = -(-layout.end // 0x1000) * 0x1000
        self.memory = GuestMemoryMmap.from_ranges([(BASE, self.buffers + 0x1000 - BASE)], dirty=True)
        self.done = (2 * size if layout.packed else 0x1_0000) - size // 2 - 1
        queue = queue_class(size)
        layout.configure(queue, event_idx=event_idx)
        position = layout.position(self.done)
        state = attrs.evolve(queue.state(), next_avail=position, next_used=position)
        self.queue = queue_class.from_state(state, self.memory)
        self.driver = Driver(self.memory, layout, event_idx=event_idx, start=self.done)
        self.batch = ChainBatch(size, size)

    def chain(self, number, count):
        """Buffers of several addresses and lengths, the last one writable."""
        return tuple(
            Segment(self.buffers + (number + place) % 0xF00, 1 + number % 7, place == count - 1)
            for place in range(count)
        )

    def fill(self, counts):
        """Chains of so many buffers each come with one announcement, and are popped as they were written."""
        queue, memory, driver = self.queue, self.memory, self.driver
        assert (queue.enable_notification(memory), driver.enable_interrupts()) == (False, False)
        chains = [self.chain(number, count) for number, count in enumerate(counts)]
        heads = [driver.add(chain, announce=False) for chain in chains]
        assert queue.pop(memory) is None
        driver.publish()
        assert driver.kick_needed() is True
        assert queue.pop_batch(memory, self.batch) == len(chains)
        assert [record[2] for record in self.batch.records()] == heads
        assert [self.batch.segments(index) for index in range(len(chains))] == chains
        assert queue.pop(memory) is None
        assert queue.in_flight == len(chains)
        self.done += sum(counts) if self.layout.packed else len(counts)
        return heads

    def take(self, heads):
        """They come back in this order, one byte written to each; the ring is empty then."""
        assert [(used.head, used.written) for used in self.driver.completed()] == [
            (head, 1) for head in heads
        ]
        assert self.driver.free_descriptors == self.layout.size
        assert self.queue.in_flight == 0
        position = self.layout.position(self.done)
        assert (self.queue.next_avail, self.queue.next_used) == (position, position)
        assert (self.driver.next_avail, self.driver.last_used) == (position, position)

    def together(self, counts):
        """A whole lap with one batch."""
        heads = self.fill(counts)
        for index in range(len(heads)):
            self.batch.set_written(index, 1)
        assert self.queue.complete_batch(self.memory, self.batch) is True
        self.take(heads)

    def backwards(self, counts):
        """A whole lap, completed one by one from the last chain to the first."""
        heads = self.fill(counts)[::-1]
        for head in heads:
            self.queue.add_used(self.memory, head, 1)
        assert self.queue.needs_notification(self.memory) is True
        self.take(heads)

    def outcome(self):
        """Everything that the other implementation must have done as well."""
        span = self.memory.read(self.layout.desc_table, self.layout.end - self.layout.desc_table)
        return self.queue.state(), self.queue.counters, span, self.memory.take_dirty()


def laps(queue_class, layout, lengths, *, event_idx):
    """The ring is filled three times, with chains of each length and one of what is left."""
    traffic, size = Traffic(queue_class, layout, event_idx=event_idx), layout.size
    first, second, third = (
        [length] * (size // length) + [size % length][: size % length] for length in lengths
    )
    traffic.together(first)
    traffic.together(second)
    traffic.backwards(third)
    return traffic.outcome()


@pytest.mark.parametrize(("packed", "size"), SIZES)
def test_laps_of_a_full_ring(packed, size):
    """All single buffers, one chain as long as the ring, and lists of three, from shortly before the end."""
    layout = RingLayout.at(BASE, size, packed=packed)
    _state, counters, *_ = laps(Queue, layout, (1, size, 3), event_idx=size % 2 == 0)
    assert counters.chains == size + 1 + -(-size // 3)
    assert counters.wraps >= (3 if packed else 1)


@pytest.mark.parametrize(("packed", "size"), SIZES)
def test_laps_beside_the_twin(packed, size):
    """Fewer and longer chains, for the twin looks at all that it holds; all bytes of the rings must agree."""
    layout = RingLayout.at(BASE, size, packed=packed)
    queue, twin = (laps(kind, layout, (97, 128, 61), event_idx=size % 2 == 1) for kind in (Queue, TwinQueue))
    assert queue == twin


@settings(max_examples=40)
@given(data=st.data(), packed=st.booleans(), event_idx=st.booleans())
def test_laps_of_any_ring(data, packed, event_idx):
    """The same for any legal size and place; those of a packed ring need not be powers of two."""
    layout = data.draw(ring_layouts(BASE, 200, packed=packed))
    lengths = (1, layout.size, 3)
    queue, twin = (laps(kind, layout, lengths, event_idx=event_idx) for kind in (Queue, TwinQueue))
    assert queue == twin
