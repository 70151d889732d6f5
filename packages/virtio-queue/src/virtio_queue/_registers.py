"""The registers of a queue, and its state from and to them."""

from typing import TYPE_CHECKING

import attrs

from virtio_queue._counters import QueueCounters
from virtio_queue._errors import DriverError, Reason
from virtio_queue._ffi import driver_error, held_chains, lib, new_virtq, restore_held
from virtio_queue._layout import U16, U64, check_register
from virtio_queue._state import HeldChain, QueueState

if TYPE_CHECKING:  # the extension has no types: these live in _core.pyi only
    from virtio_queue._core import Virtq

__all__ = ("QueueRegisters", "restore", "save")


class QueueRegisters:
    """What a transport sets and anybody may look at; `Queue` is one."""

    __slots__ = ("_vq",)

    _vq: "Virtq"

    @property
    def max_size(self) -> int:
        """Most entries a driver may choose."""
        return self._vq.max_size

    @property
    def size(self) -> int:
        """Entries; settable, 0 to 65535. Usable is 1 to `max_size`, in a split ring a power of two."""
        return self._vq.size

    @size.setter
    def size(self, value: int) -> None:
        self._vq.size = check_register("size", value, U16)

    @property
    def desc_table(self) -> int:
        """Guest address of the descriptor area; settable, 64 bits. Usable is a multiple of 16."""
        return self._vq.desc

    @desc_table.setter
    def desc_table(self, value: int) -> None:
        self._vq.desc = check_register("desc_table", value, U64)

    @property
    def avail_ring(self) -> int:
        """Guest address of the driver area; settable, 64 bits. Usable is a multiple of 2 (packed: 4)."""
        return self._vq.avail

    @avail_ring.setter
    def avail_ring(self, value: int) -> None:
        self._vq.avail = check_register("avail_ring", value, U64)

    @property
    def used_ring(self) -> int:
        """Guest address of the device area; settable, 64 bits. Usable is a multiple of 4."""
        return self._vq.used

    @used_ring.setter
    def used_ring(self, value: int) -> None:
        self._vq.used = check_register("used_ring", value, U64)

    @property
    def ready(self) -> bool:
        """Whether the driver has enabled the queue; settable."""
        return bool(self._vq.flags & lib.VIRTQ_READY)

    @ready.setter
    def ready(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_READY, value)

    @property
    def event_idx(self) -> bool:
        """VIRTIO_F_EVENT_IDX was negotiated; settable."""
        return bool(self._vq.flags & lib.VIRTQ_EVENT_IDX)

    @event_idx.setter
    def event_idx(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_EVENT_IDX, value)

    @property
    def indirect(self) -> bool:
        """VIRTIO_F_INDIRECT_DESC was negotiated; settable."""
        return bool(self._vq.flags & lib.VIRTQ_INDIRECT)

    @indirect.setter
    def indirect(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_INDIRECT, value)

    @property
    def compatible(self) -> bool:
        """Walk chains of a split ring as the Rust crate virtio-queue does; settable, False after a reset.

        A chain ends where it breaks a rule (index, loop, table size, table outside memory, nested table, 2^32
        bytes, more buffers than the queue has entries) as if it were shorter. Indirect tables are followed
        whether or not they were negotiated, NEXT beside INDIRECT is ignored, and readable buffers behind
        writable ones count as if they were before them. What breaks the ring, and a buffer outside memory, is
        reported as ever. Packed rings are always strict.
        """
        return bool(self._vq.flags & lib.VIRTQ_COMPATIBLE)

    @compatible.setter
    def compatible(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_COMPATIBLE, value)

    @property
    def packed(self) -> bool:
        """VIRTIO_F_RING_PACKED was negotiated; settable while no chain is in flight.

        Another format begins at its start: both positions, `num_added`, `broken` and the counters are reset.
        """
        return bool(self._vq.flags & lib.VIRTQ_PACKED)

    @packed.setter
    def packed(self, value: bool) -> None:
        if value != self.packed:
            self._renew("packed", value, packed=value, in_order=self.in_order)

    @property
    def in_order(self) -> bool:
        """VIRTIO_F_IN_ORDER was negotiated; settable while no chain is in flight, as `packed` is.

        Chains must then be completed in the order of their pops. In a batch, those that were used completely
        (`written` is all there was room for) need no used element before the one of the next that was not, or
        of the last (2.7.9, 2.8.9).
        """
        return bool(self._vq.flags & lib.VIRTQ_IN_ORDER)

    @in_order.setter
    def in_order(self, value: bool) -> None:
        if value != self.in_order:
            self._renew("in_order", value, packed=self.packed, in_order=value)

    def _renew(self, name: str, value: bool, *, packed: bool, in_order: bool) -> None:
        if self.in_flight:
            raise ValueError(f"{name} cannot become {value} with {self.in_flight} chains in flight")
        old, new = self._vq, new_virtq(self._vq.max_size, packed=packed, in_order=in_order)
        new.size, new.desc, new.avail, new.used = old.size, old.desc, old.avail, old.used
        new.flags |= old.flags & ~(lib.VIRTQ_PACKED | lib.VIRTQ_IN_ORDER)
        self._vq = new

    @property
    def next_avail(self) -> int:
        """Where the next chain is popped.

        Split: a free-running 16-bit index. Packed: 15 bits of index, and the wrap counter as bit 15.
        """
        return self._vq.next_avail

    @property
    def next_used(self) -> int:
        """Where the next used element goes, in the same form."""
        return self._vq.next_used

    @property
    def in_flight(self) -> int:
        """Chains popped and not completed, 0 to `size`."""
        vq = self._vq
        return vq.in_flight if vq.flags & lib.VIRTQ_PACKED else (vq.next_avail - vq.next_used) & U16

    @property
    def broken(self) -> DriverError | None:
        """Why nothing is popped any more, None for a sound queue."""
        return driver_error(self._vq.broken) if self._vq.broken.error else None

    @property
    def counters(self) -> QueueCounters:
        """What the queue did since it was made or reset; other threads' numbers may be a moment old."""
        raw = self._vq.counters
        return QueueCounters(raw.chains, raw.tables, raw.wraps, raw.notified, raw.suppressed)

    def _set_flag(self, flag: int, value: bool) -> None:
        self._vq.flags = self._vq.flags | flag if value else self._vq.flags & ~flag


def save(queue: QueueRegisters) -> QueueState:
    """See `Queue.state`."""
    vq = queue._vq
    return QueueState(
        max_size=vq.max_size,
        size=vq.size,
        ready=queue.ready,
        desc_table=vq.desc,
        avail_ring=vq.avail,
        used_ring=vq.used,
        event_idx=queue.event_idx,
        indirect=queue.indirect,
        compatible=queue.compatible,
        packed=queue.packed,
        in_order=queue.in_order,
        next_avail=vq.next_avail,
        next_used=vq.next_used,
        num_added=vq.num_added,
        popped=vq.popped,
        held=[HeldChain(*chain) for chain in held_chains(vq)],
        broken=Reason(-vq.broken.error) if vq.broken.error else None,
    )


def restore(queue: QueueRegisters, state: QueueState) -> None:
    """Bring a fresh queue into a state."""
    queue.packed, queue.in_order = state.packed, state.in_order
    vq = queue._vq
    vq.size, vq.desc, vq.avail, vq.used = state.size, state.desc_table, state.avail_ring, state.used_ring
    queue.ready, queue.event_idx, queue.indirect = state.ready, state.event_idx, state.indirect
    queue.compatible = state.compatible
    vq.next_avail, vq.next_used, vq.num_added = state.next_avail, state.next_used, state.num_added
    vq.popped = state.popped
    restore_held(vq, map(attrs.astuple, state.held))
    if state.broken is not None:
        vq.broken.error, vq.broken.head = -state.broken, lib.VIRTQ_NO_HEAD
