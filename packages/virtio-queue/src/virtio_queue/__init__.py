"""Device side of virtqueues: chains, batches in C, notification decisions, saved state.

See the README for a first example. The driver side and a pure-Python twin are in `virtio_queue.testing`.
"""

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._counters import QueueCounters
from virtio_queue._errors import AbiMismatchError, DriverError, InvalidStateError, Reason, VirtioQueueError
from virtio_queue._place import NotificationData, RingPlace
from virtio_queue._protocol import VirtQueue
from virtio_queue._queue import Queue
from virtio_queue._state import HeldChain, QueueState
from virtio_queue._stream import Reader, Writer
from virtio_queue._wire import U8, U16, U32, U64, WireStruct

__all__ = (
    "U8",
    "U16",
    "U32",
    "U64",
    "AbiMismatchError",
    "ChainBatch",
    "DescriptorChain",
    "DriverError",
    "HeldChain",
    "InvalidStateError",
    "NotificationData",
    "Queue",
    "QueueCounters",
    "QueueState",
    "Reader",
    "Reason",
    "RingPlace",
    "Segment",
    "VirtQueue",
    "VirtioQueueError",
    "WireStruct",
    "Writer",
)
