"""Both implementations are what devices depend on; mypy reads this file too."""

import pytest
from virtio_queue import Queue, VirtQueue
from virtio_queue.testing import TwinQueue
from vmm_memory import GuestMemoryMmap

IMPLEMENTATIONS: list[VirtQueue] = [Queue(4), TwinQueue(4)]


@pytest.mark.parametrize("queue", IMPLEMENTATIONS, ids=lambda queue: type(queue).__name__)
def test_fresh_queue(queue: VirtQueue) -> None:
    """Nothing is negotiated or ready, and the size is the largest."""
    assert (queue.max_size, queue.size, queue.ready, queue.event_idx, queue.indirect) == (
        4,
        4,
        False,
        False,
        False,
    )
    assert (queue.next_avail, queue.next_used) == (0, 0)
    assert not queue.is_valid(GuestMemoryMmap())
