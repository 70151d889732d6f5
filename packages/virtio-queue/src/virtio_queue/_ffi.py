"""The only module that touches the C core."""

from __future__ import annotations

import errno
import mmap
import struct
from typing import TYPE_CHECKING, NoReturn, SupportsInt, cast
from weakref import WeakKeyDictionary

from vmm_memory import GuestMemory, ReadableBuffer, WritableBuffer

from virtio_queue._core import ffi, lib
from virtio_queue._errors import AbiMismatchError, DriverError, Reason
from virtio_queue._layout import U16, U32

if TYPE_CHECKING:  # the extension has no types: these live in _core.pyi only
    from collections.abc import Iterable, MutableSequence, Sequence

    from virtio_queue._core import Batch, Fault, Held, Virtq

__all__ = (
    "BatchArrays",
    "driver_error",
    "fail",
    "gather",
    "held_chains",
    "lib",
    "new_virtq",
    "restore_held",
    "scatter",
)

# Bound once: found anew in each call they would cost as much as the crossing.
_gather, _scatter, _BYTES, _NULL = lib.vq_gather, lib.vq_scatter, ffi.typeof("uint8_t[]"), ffi.NULL
_HELD = struct.Struct("<IH2x")  # struct virtq_held without `chosen`


_IDS = 1 << 16  # a driver of a packed ring may give any 16-bit id
# The tables of a queue live as long as its struct does, whoever still works with that.
_tables: WeakKeyDictionary[Virtq, object] = WeakKeyDictionary()


def new_virtq(max_size: int, *, packed: bool = False, in_order: bool = False) -> Virtq:
    """A `struct virtq` as after a reset, of either format."""
    queue = cast("Virtq", ffi.new("struct virtq *"))
    queue.max_size = max_size
    queue.size = max_size
    owned: list[object] = []
    if packed or in_order:
        entries = 1 << (max_size - 1).bit_length()
        order = ffi.new("uint16_t[]", entries)
        queue.order, queue.order_mask = cast("MutableSequence[int]", order), entries - 1
        owned.append(order)
    if packed:
        # Anonymous memory: of the table of ids only the pages exist whose ids the driver uses, mostly one.
        ids = mmap.mmap(-1, _IDS * ffi.sizeof("struct virtq_held"), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held = ffi.from_buffer("struct virtq_held[]", ids)
        queue.held, queue.ids = cast("Sequence[Held]", held), _IDS
        queue.next_avail = queue.next_used = lib.VIRTQ_WRAP
        owned.append(held)
    queue.flags = (lib.VIRTQ_PACKED if packed else 0) | (lib.VIRTQ_IN_ORDER if in_order else 0)
    _tables[queue] = owned
    return queue


def held_chains(queue: Virtq) -> list[tuple[int, int, int]]:
    """The (head, descriptors, order) of each chain in flight, as popped; split: if in order."""
    if not queue.flags & lib.VIRTQ_PACKED:
        if not queue.flags & lib.VIRTQ_IN_ORDER:
            return []
        waiting = (queue.next_avail - queue.next_used) & U16
        places = [(queue.next_used + offset) & U16 for offset in range(waiting)]
        return [(queue.order[place & queue.order_mask], 1, place) for place in places]
    recent = _recent(queue)
    if len(recent) == queue.in_flight:
        return recent
    raw = memoryview(ffi.buffer(queue.held, _IDS * _HELD.size))
    rows = ((head, slots, order) for head, (order, slots) in enumerate(_HELD.iter_unpack(raw)) if slots)
    return sorted(rows, key=lambda row: (row[2] - queue.popped) & U32)


def _recent(queue: Virtq) -> list[tuple[int, int, int]]:
    """Those in flight among the last pops: all, unless one is older than `order` remembers."""
    found: list[tuple[int, int, int]] = []
    for back in range(1, queue.order_mask + 2):
        if len(found) == queue.in_flight:
            break
        number = (queue.popped - back) & U32
        head = queue.order[number & queue.order_mask]
        chain = queue.held[head]
        if chain.slots and chain.order == number:
            found.append((head, chain.slots, number))
    return found[::-1]


def restore_held(queue: Virtq, chains: Iterable[tuple[int, int, int]]) -> None:
    """Have these chains, as `held_chains` gives them, in flight; `popped` is set already."""
    for head, slots, order in chains:
        queue.order[order & queue.order_mask] = head
        if not queue.flags & lib.VIRTQ_PACKED:
            continue
        queue.held[head].slots, queue.held[head].order = slots, order
        queue.in_flight += 1
        queue.busy += slots


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


def gather(memory: GuestMemory, batch: Batch, into: WritableBuffer) -> int:
    """Result of vq_gather: bytes, or a negative error."""
    # SAFETY: the map and the buffer stay while `view` and `target` live, and C gets the buffer's true length.
    view = memory.access_map()
    target = ffi.from_buffer(_BYTES, into, True)  # by keyword it takes twice as long
    return _gather(view.map, batch, target, len(target))


def scatter(memory: GuestMemory, batch: Batch, data: ReadableBuffer, sizes: bytes | None) -> int:
    """Result of vq_scatter: bytes, or a negative error; `sizes` are 32-bit integers, one a chain."""
    # SAFETY: as in `gather`; the caller made `sizes` as long as the batch.
    view = memory.access_map()
    source = ffi.from_buffer(_BYTES, data)
    shares = _NULL if sizes is None else ffi.from_buffer("uint32_t[]", sizes)
    return _scatter(view.map, batch, source, len(source), shares)


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
