"""Errors of virtio-queue.

    VirtioQueueError
    ├── DriverError          the guest broke the spec: the device asks for a reset (VIRTIO 1.2, 2.1.2)
    ├── InvalidStateError    a saved state that no queue can be in (also a ValueError)
    └── AbiMismatchError     vmm-memory or a batch were built for another ABI

A bad argument of our caller is a plain ValueError.
"""

import enum
import errno
import functools
from collections.abc import Callable

__all__ = ("AbiMismatchError", "DriverError", "InvalidStateError", "Reason", "VirtioQueueError")


class Reason(enum.IntEnum):
    """Which rule the driver broke; the values are those of `virtio_batch.h` and of the core."""

    INDEX = errno.EINVAL
    LOOP = errno.ELOOP
    TOO_LONG = errno.E2BIG
    INDIRECT_NOT_NEGOTIATED = errno.EOPNOTSUPP
    INDIRECT_NESTED = errno.EMLINK
    INDIRECT_WITH_NEXT = errno.ENOTUNIQ
    TABLE_SIZE = errno.EMSGSIZE
    TABLE_ADDRESS = errno.EADDRNOTAVAIL
    ORDER = errno.EILSEQ
    TOTAL = errno.EOVERFLOW
    ADDRESS = errno.EFAULT
    READ_ONLY = errno.EACCES
    NOT_READY = errno.ENODEV
    RING_SIZE = errno.EDOM
    RING_ALIGNMENT = errno.EBADR
    RING_ADDRESS = errno.ENXIO
    AVAILABLE_INDEX = errno.EBADMSG
    HEAD = errno.ECHRNG
    RING_POSITION = errno.ESTALE
    BUFFER_ID = errno.EEXIST
    ENDLESS = errno.ENOSPC
    TOO_SHORT = errno.ENODATA


# Per reason: what broke, and how to show the value found and the limit.
_TEXT: dict[Reason, tuple[str, str]] = {
    Reason.INDEX: ("next index outside its table", "index {value}, table of {limit} entries"),
    Reason.LOOP: ("descriptors form a loop", "step {value} in a table of {limit} entries"),
    Reason.TOO_LONG: ("chain longer than the queue", "buffer {value}, queue size {limit}"),
    Reason.INDIRECT_NOT_NEGOTIATED: (
        "indirect descriptor without VIRTIO_F_INDIRECT_DESC",
        "flags {value:#x}",
    ),
    Reason.INDIRECT_NESTED: ("indirect descriptor inside an indirect table", "flags {value:#x}"),
    Reason.INDIRECT_WITH_NEXT: ("INDIRECT and NEXT in one descriptor", "flags {value:#x}"),
    Reason.TABLE_SIZE: (
        "bad size of an indirect table",
        "{value} bytes, must be a multiple of {limit} above 0",
    ),
    Reason.TABLE_ADDRESS: ("indirect table outside guest memory", "{limit} bytes at {value:#x}"),
    Reason.ORDER: ("device-readable buffer after a device-writable one", "{limit} bytes at {value:#x}"),
    Reason.TOTAL: ("chain of more than 2^32 bytes", "{value} bytes, limit {limit}"),
    Reason.ADDRESS: ("buffer outside guest memory", "{limit} bytes at {value:#x}"),
    Reason.READ_ONLY: ("device-writable buffer in read-only memory", "{limit} bytes at {value:#x}"),
    Reason.NOT_READY: ("queue used before the driver made it ready", "ready is {value}, must be {limit}"),
    Reason.RING_SIZE: (
        "bad queue size",
        "{value}, must be from 1 to {limit}, in a split ring a power of two",
    ),
    Reason.RING_ALIGNMENT: ("misaligned", "{value:#x}, must be a multiple of {limit}"),
    Reason.RING_ADDRESS: ("outside guest memory", "{limit} bytes at {value:#x}"),
    Reason.AVAILABLE_INDEX: (
        "available index ran ahead",
        "{value} chains announced, at most {limit} may wait",
    ),
    Reason.HEAD: ("head index outside the descriptor table", "index {value}, queue size {limit}"),
    Reason.RING_POSITION: (
        "position behind the end of the ring, whose size was changed without a reset",
        "descriptor {value}, queue size {limit}",
    ),
    Reason.BUFFER_ID: ("buffer id of a chain that the device still has", "id {value}"),
    Reason.ENDLESS: (
        "chain runs into descriptors that the device still has",
        "no end within {limit} descriptors, queue size {value}",
    ),
    Reason.TOO_SHORT: ("buffers too short for the request", "{value} bytes needed, {limit} left"),
}
_PARTS = ("descriptor area", "driver area", "device area")


class VirtioQueueError(Exception):
    """Root of all errors of this package."""


class DriverError(VirtioQueueError):
    """The driver (the guest) broke a rule of VIRTIO.

    Attributes:
        reason: Which rule.
        head: Head index (packed: buffer id) of the chain at fault, None when the whole queue is.
        position: How many buffers of the chain were accepted before the fault; for RING_ALIGNMENT and
            RING_ADDRESS the part: 0 descriptor area, 1 driver area, 2 device area. A part that regions or
            host addresses divide within four bytes counts as outside memory.
        value: What was found, None when not recorded (chains of a batch).
        limit: What would have been allowed, None likewise.
    """

    def __init__(
        self,
        reason: Reason,
        *,
        head: int | None = None,
        position: int = 0,
        value: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.reason = reason
        self.head = head
        self.position = position
        self.value = value
        self.limit = limit
        super().__init__(self._message())

    def __reduce__(self) -> tuple[Callable[[Reason], "DriverError"], tuple[Reason]]:
        rebuild = functools.partial(
            DriverError, head=self.head, position=self.position, value=self.value, limit=self.limit
        )
        return rebuild, (self.reason,)

    def _message(self) -> str:
        what, detail = _TEXT[self.reason]
        if self.reason in (Reason.RING_ALIGNMENT, Reason.RING_ADDRESS):
            what = f"{_PARTS[self.position]} {what}"
        if self.value is not None:
            what = f"{what}: {detail.format(value=self.value, limit=self.limit)}"
        return what if self.head is None else f"{what} (chain {self.head}, buffer {self.position})"


class InvalidStateError(VirtioQueueError, ValueError):
    """A saved state that no queue can be in.

    Attributes:
        field: Name of the field of `QueueState`.
        value: What it holds.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field = field
        self.value = value
        self._rule = rule
        super().__init__(f"queue state: {field} is {value!r}, must be {rule}")

    def __reduce__(self) -> tuple[type["InvalidStateError"], tuple[str, object, str]]:
        return InvalidStateError, (self.field, self.value, self._rule)


class AbiMismatchError(VirtioQueueError):
    """The memory map or the batch was built for another ABI of the shared headers; reinstall the packages."""
