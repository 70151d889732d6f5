"""The benchmark's ring does what it says."""

import pytest
from virtio_queue import ChainBatch, Queue
from virtio_queue._layout import ring_position
from virtio_queue.testing import BatchWorkload, TwinQueue
from vmm_memory import GuestMemoryMmap


@pytest.mark.parametrize("cls", [Queue, TwinQueue])
@pytest.mark.parametrize(
    ("options", "segments"),
    [({}, 2), ({"descriptors": 4, "event_idx": True}, 4), ({"descriptors": 16, "indirect": True}, 16)],
)
@pytest.mark.parametrize("shape", [{}, {"packed": True}, {"packed": True, "size": 300}], ids=str)
def test_every_round_is_full(cls, options, segments, shape):
    """Round after round, `chains` chains of `descriptors` buffers are popped and completed."""
    mem = GuestMemoryMmap.from_ranges([(0, 0x4_0000)])
    queue, batch = cls(300), ChainBatch(64, 1024)
    work = BatchWorkload(mem, queue, base=0x1000, room=0x3_F000, **options, **shape)
    for _ in range(9):
        work.refill()
        assert queue.pop_batch(mem, batch) == 64
        assert {record[1] for record in batch.records()} == {segments}
        assert batch.errors() == []
        queue.complete_batch(mem, batch)
    descriptors = 64 if options.get("indirect") else 64 * segments
    size = shape.get("size", 256)
    assert queue.next_used == ring_position(9 * descriptors if shape else 9 * 64, size, packed=bool(shape))
    assert queue.counters.chains == 9 * 64
