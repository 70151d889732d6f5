"""Rings over the border of two regions, buffers at limits, batches full by bytes: beside the twin."""

import pytest
from virtio_queue import ChainBatch, Queue, Segment
from virtio_queue.testing import (
    Driver,
    HostileChain,
    Lockstep,
    PackedRings,
    QueueTrial,
    RingLayout,
    TwinQueue,
)
from vmm_memory import GuestMemoryMmap

DATA, BORDER, READ_ONLY, HUGE = 0x5000, 0x8000, 0xC000, 1 << 32
NEXT, WRITE, AVAIL = 1, 2, 1 << 7
READ = Segment(DATA, 4, False)


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request):
    """Each format in turn."""
    return request.param


@pytest.mark.parametrize("lines", range(6))
@pytest.mark.parametrize("event_idx", [False, True])
def test_a_ring_over_the_border(packed, event_idx, lines):
    """Any of its parts lies in two regions: three laps go as anywhere else, dirty pages included."""
    trial = QueueTrial(Queue, packed=packed, size=4, event_idx=event_idx, at=BORDER - 16 * lines)
    for _ in range(3):
        for _ in range(3):
            trial.add(segments=(READ, Segment(DATA + 8, 4, True))[: 1 + (lines & 1)])
        trial.publish_and_kick()
        trial.pop_batch(2)
        trial.pop()
        trial.complete_batch((1, 0), 4)
        trial.add_used(0, 0)
        trial.needs_notification()
        trial.enable_notification()
        trial.disable_notification()
        trial.take_used()
    assert trial.honest


def test_a_later_buffer_over_the_border(packed):
    """The first chain names the region; the next one's buffer runs out of it, legally."""
    trial = QueueTrial(Queue, packed=packed)
    trial.add(segments=(READ,))
    trial.add(segments=(Segment(BORDER - 2, 4, False), Segment(DATA, 1, True)))
    trial.add(segments=(Segment(BORDER, 4, True),))
    trial.pop_batch(4)
    trial.complete_batch((0, 1, 2), 1)
    trial.take_used()
    assert trial.honest


def test_read_only_memory_in_the_middle_of_a_chain(packed):
    """Read from it, then write to it: the second breaks the chain."""
    trial = QueueTrial(Queue, packed=packed)
    rows = ((READ_ONLY, 4, NEXT, 1), (READ_ONLY + 8, 4, WRITE, 0))
    trial.add_hostile(HostileChain(rows=rows))
    trial.pop()
    trial.reset()
    trial.add(segments=(Segment(READ_ONLY, 4, False),))
    trial.add_hostile(
        HostileChain(rows=((0, 0, 0, 0), *rows) if not packed else rows, head=0 if packed else 1)
    )
    trial.pop_batch(4)
    assert not trial.honest


@pytest.mark.parametrize("last", [0, 1, 2])
def test_four_gibibytes_in_a_later_chain(packed, last):
    """2^32 bytes are a chain, one more is none; also where the region is known from the chain before."""
    trial = QueueTrial(Queue, packed=packed)
    trial.add(segments=(Segment(HUGE, 1, False),))
    trial.add(segments=(Segment(HUGE, 0xFFFF_FFFF, False), Segment(HUGE, last, False)))
    trial.honest = last < 2
    trial.pop_batch(4)
    trial.add_used(1, 0)
    assert trial.in_flight == 1


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [
        ((1 << 28, 1, 1), [1, 2]),
        ((1, 1 << 28, 1), [2, 1]),
        ((1, (1 << 28) - 3, 1, 1), [4]),
        (((1 << 28) - 1, 1, 1, 1), [2, 2]),
    ],
)
def test_a_batch_is_full_by_its_bytes(packed, lengths, counts):
    """With the chain that brings it to 256 MiB, the first of the batch or a later one."""
    memory = GuestMemoryMmap.from_ranges([(0x1000, 0x1000), (HUGE, 1 << 28)])
    layout = RingLayout.at(0x1000, 8, packed=packed)
    queue = Queue(8)
    layout.configure(queue)
    driver = Driver(memory, layout)
    for length in lengths:
        driver.add([Segment(HUGE, length, False)])
    got = []
    while sum(got) < len(lengths):
        got.append(queue.pop_batch(memory, ChainBatch(4, 8)))
    assert got == counts


def test_used_descriptors_pages_apart():
    """Long lists are skipped: a page between two used descriptors, not written itself, stays clean."""
    size, room = 1024, 0x8000
    layout = RingLayout.at(0x1000, size, packed=True)
    memories = tuple(GuestMemoryMmap.from_ranges([(0x1000, room)], dirty=True) for _ in range(2))
    queues = (Queue(size), TwinQueue(size))
    for queue, memory in zip(queues, memories, strict=True):
        layout.configure(queue)
        raw = PackedRings(memory, layout)
        lists = (600, 100, 200)
        slot = 0
        for head, count in enumerate(lists):
            for place in range(count):
                flags = AVAIL | (NEXT if place < count - 1 else 0)
                raw.write_descriptor(slot, 0x1000, 1, head, flags)
                slot += 1
        memory.take_dirty()
    pair = Lockstep(queues, memories, [(0x1000, room)])
    batch = pair.pop_batch(3, size)
    assert [record[1] for record in batch.records()] == [600, 100, 200]
    for memory in memories:
        memory.take_dirty()
    for queue, memory in zip(queues, memories, strict=True):
        queue.complete_batch(memory, batch)
    dirty = [memory.take_dirty() for memory in memories]
    assert dirty[0] == dirty[1]
    touched = {addr + page for addr, length in dirty[0] for page in range(0, length, 0x1000)}
    # Slots 0, 600 and 700: bytes 0, 9600 and 11200 of the ring, and none in its second page.
    assert touched == {0x1000, 0x3000}
