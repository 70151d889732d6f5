"""A queue behind an IOMMU: what C finds untranslated is resolved, and tried again.

C walks the translations that are known (`AccessMap.translated`) and reports what lies outside them as a
driver's fault. Here each such fault is first taken for a miss: the memory is asked to resolve it. What it
refuses stays the fault that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from vmm_memory import GuestAccessError, GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._errors import Reason
from virtio_queue._ffi import lib

if TYPE_CHECKING:  # the extension has no types: these live in _core.pyi only
    from virtio_queue._core import Batch, Virtq

__all__ = ("again", "pop_again")

# Of one call. A chain may miss in each of its buffers; one whose buffers do not fit the IOTLB at once misses
# again and again, and becomes a broken chain after so many.
_TRIES: Final = 512
_BUFFERS: Final = frozenset({-Reason.ADDRESS, -Reason.READ_ONLY, -Reason.TABLE_ADDRESS})


class _Queue(Protocol):
    _vq: Virtq

    def undo_pop(self, count: int = 1) -> None: ...


def again(rc: int, call: Callable[..., int], mem: GuestMemory, queue: Virtq, *rest: object) -> int:
    """Go on with a call of the core that failed: resolve what it missed of the ring.

    Args:
        rc: What it returned.
        call: The function, which takes the map, the queue, and the rest.
        mem: The memory of the ring.
        queue: Its fault says what was missed.
        rest: Further arguments.

    Returns:
        0 or more, or the error that resolving does not mend.
    """
    for _ in range(_TRIES):
        if rc != -Reason.RING_ADDRESS or not _ring_resolved(mem, queue):
            break
        view = mem.access_map()
        rc = call(view.map, queue, *rest)
    return rc


def pop_again(
    rc: int, call: Callable[[object, Virtq, Batch], int], mem: GuestMemory, queue: _Queue, batch: ChainBatch
) -> int:
    """Judge what a pop into a batch returned: chains that missed are resolved and popped again.

    Returns:
        As the pop: chains in the batch, or an error. Chains before one that missed are delivered first.
    """
    raw, vq, last = batch.raw, queue._vq, (0, 0, 0)
    try:
        for _ in range(_TRIES):
            rc = again(rc, call, mem, vq, raw)
            errors = [record[4] for record in batch.records()] if rc > 0 else []
            missed = next((i for i, error in enumerate(errors) if error in _BUFFERS), None)
            if missed is None:
                break
            if missed:
                queue.undo_pop(rc - missed)
                batch.truncate(missed)
                return missed
            if raw.max_chains == 1 or rc == 1:
                # It is alone, so that the queue's fault is this chain's. No progress: it is broken.
                fault = vq.fault
                miss = (errors[0], fault.value, fault.limit)
                if miss == last or not _buffer_resolved(mem, *miss):
                    break
                last = miss
            # A refusal must deliver this chain and no other: one at a time from here on.
            queue.undo_pop(rc)
            raw.max_chains = 1
            view = mem.access_map()
            rc = call(view.map, vq, raw)
    finally:
        raw.max_chains = batch.max_chains
    return rc


def _ring_resolved(mem: GuestMemory, queue: Virtq) -> bool:
    # The device writes part 2, and in a packed ring part 0, the descriptors (2.8.1).
    part = queue.fault.position
    written = part == 2 or (part == 0 and bool(queue.flags & lib.VIRTQ_PACKED))
    return _resolved(mem, queue.fault.value, queue.fault.limit, write=written)


def _buffer_resolved(mem: GuestMemory, error: int, addr: int, size: int) -> bool:
    # What is not there at all does not say what for it was wanted.
    ways = {-Reason.READ_ONLY: (True,), -Reason.TABLE_ADDRESS: (False,)}.get(error, (False, True))
    return any(_resolved(mem, addr, size, write=write) for write in ways)


def _resolved(mem: GuestMemory, addr: int, size: int, *, write: bool) -> bool:
    try:
        mem.resolve(addr, size, write=write)
    except GuestAccessError:
        return False
    return True
