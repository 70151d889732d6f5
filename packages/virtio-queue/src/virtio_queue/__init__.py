"""Device side of virtqueues: chains, batches in C, notification decisions, saved state.

See the README for a first example. The driver side and a pure-Python twin are in `virtio_queue.testing`.
"""

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._errors import AbiMismatchError, DriverError, InvalidStateError, Reason, VirtioQueueError
from virtio_queue._protocol import VirtQueue
from virtio_queue._queue import Queue
from virtio_queue._state import QueueState
from virtio_queue._stream import Reader, Writer

__all__ = (
    "AbiMismatchError",
    "ChainBatch",
    "DescriptorChain",
    "DriverError",
    "InvalidStateError",
    "Queue",
    "QueueState",
    "Reader",
    "Reason",
    "Segment",
    "VirtQueue",
    "VirtioQueueError",
    "Writer",
)
