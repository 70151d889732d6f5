"""The only module that touches the C core."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn, SupportsInt, cast

from virtio_queue._core import ffi, lib
from virtio_queue._errors import AbiMismatchError, DriverError, Reason

if TYPE_CHECKING:  # the extension has no types: these live in _core.pyi only
    from virtio_queue._core import Batch, Fault, Virtq

__all__ = ("BatchArrays", "driver_error", "fail", "lib", "new_virtq")


def new_virtq(max_size: int) -> Virtq:
    """A zeroed `struct virtq` as after a reset."""
    queue = cast("Virtq", ffi.new("struct virtq *"))
    queue.max_size = max_size
    queue.size = max_size
    return queue


class BatchArrays:
    """Owns a `struct virtio_batch` and its two arrays; views and address are good while this object lives."""

    __slots__ = ("_owners", "address", "batch", "chains", "segs")

    def __init__(self, max_chains: int, max_segs: int) -> None:
        chains = ffi.new("struct virtio_chain[]", max_chains)
        segs = ffi.new("struct virtio_seg[]", max_segs)
        self.batch = cast("Batch", ffi.new("struct virtio_batch *"))
        self.batch.abi = lib.VIRTIO_BATCH_ABI << 32 | ffi.sizeof("struct virtio_batch")
        self.batch.max_chains, self.batch.max_segs = max_chains, max_segs
        self.batch.chains, self.batch.segs = chains, segs
        self._owners = (chains, segs)
        self.chains = memoryview(ffi.buffer(chains))
        self.segs = memoryview(ffi.buffer(segs))
        # SAFETY: only the number leaves; whoever passes it to C holds this object, which owns the memory.
        self.address = int(cast(SupportsInt, ffi.cast("uintptr_t", self.batch)))


def driver_error(fault: Fault) -> DriverError:
    """The exception for a fault that the core recorded."""
    return DriverError(
        Reason(-fault.error),
        head=None if fault.head == lib.VIRTQ_NO_HEAD else fault.head,
        position=fault.position,
        value=fault.value if fault.known else None,
        limit=fault.limit if fault.known else None,
    )


def fail(rc: int, queue: Virtq, caller: str) -> NoReturn:
    """Turn a negative result into its exception.

    Args:
        rc: What the core returned.
        queue: The queue it was called with; its `fault` tells what the driver did.
        caller: Message for the case that our caller is to blame (-EINVAL).
    """
    if rc == -errno.EINVAL:
        raise ValueError(caller)
    if rc == -errno.EPROTO:
        raise AbiMismatchError(
            f"core refused the memory map or the batch (error {-rc}): built for another ABI"
        )
    raise driver_error(queue.fault)
