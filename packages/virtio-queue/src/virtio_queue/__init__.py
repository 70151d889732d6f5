"""Device side of virtqueues: chains, batches in C, notification decisions, saved state.

See the README for a first example. The driver side and a pure-Python twin are in `virtio_queue.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtio_queue._batch import ChainBatch
    from virtio_queue._chain import DescriptorChain, Segment
    from virtio_queue._counters import QueueCounters
    from virtio_queue._errors import (
        AbiMismatchError,
        DriverError,
        InvalidStateError,
        Reason,
        VirtioQueueError,
    )
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

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_batch": ("ChainBatch",),
    "_chain": ("DescriptorChain", "Segment"),
    "_counters": ("QueueCounters",),
    "_errors": ("AbiMismatchError", "DriverError", "InvalidStateError", "Reason", "VirtioQueueError"),
    "_place": ("NotificationData", "RingPlace"),
    "_protocol": ("VirtQueue",),
    "_queue": ("Queue",),
    "_state": ("HeldChain", "QueueState"),
    "_stream": ("Reader", "Writer"),
    "_wire": ("U16", "U32", "U64", "U8", "WireStruct"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a public name."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
