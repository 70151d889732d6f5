"""The state machine of `virtio_queue.testing.stateful` on both implementations."""

from virtio_queue import Queue
from virtio_queue.testing import TwinQueue
from virtio_queue.testing.stateful import queue_machine
from vmm_memory import GuestMemoryMmap


def _memory(base: int, size: int) -> GuestMemoryMmap:
    return GuestMemoryMmap.from_ranges([(base, size)], dirty=True)


TestQueue = queue_machine(Queue, _memory).TestCase
TestTwin = queue_machine(TwinQueue, _memory).TestCase
