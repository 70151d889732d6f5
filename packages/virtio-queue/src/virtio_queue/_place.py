"""A ring on its way to another backend, and what a notification says about one."""

from typing import Self

import attrs

from virtio_queue._layout import U16, U32, WRAP, ring_position
from virtio_queue._state import QueueState

__all__ = ("NotificationData", "RingPlace", "place_of", "reset_ring", "state_at")

_MANY = 1 << 16


@attrs.frozen(kw_only=True)
class RingPlace:
    """What another backend (vhost, vhost-user, vDPA, another process) needs to go on with a ring.

    Attributes:
        size: Entries.
        desc_table: Guest address of the descriptor area.
        avail_ring: Guest address of the driver area.
        used_ring: Guest address of the device area.
        packed: Format of the ring.
        next_avail: Where the next chain is popped: a free-running 16-bit index, in a packed ring 15 bits of
            index with the wrap counter as bit 15.
        next_used: Where the next used element goes, in the same form.
    """

    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    packed: bool
    next_avail: int
    next_used: int

    @property
    def wraps(self) -> tuple[bool, bool]:
        """The wrap counters of `next_avail` and `next_used`; a split ring has none, and they are True."""
        if not self.packed:
            return True, True
        return bool(self.next_avail & WRAP), bool(self.next_used & WRAP)

    @property
    def vring_base(self) -> int:
        """The number of VHOST_SET_VRING_BASE: `next_avail`, in a packed ring with `next_used` above it."""
        return self.next_avail | (self.next_used << 16 if self.packed else 0)

    def moved(self, vring_base: int, *, next_used: int | None = None) -> Self:
        """The same ring after the other backend has worked on it.

        Args:
            vring_base: From VHOST_GET_VRING_BASE, 32 bits.
            next_used: Of a split ring, whose base does not say it: the used index in guest memory; None means
                that everything popped was completed.

        Raises:
            ValueError: `vring_base` has more bits than the format has.
        """
        limit = U32 if self.packed else U16
        if not 0 <= vring_base <= limit:
            raise ValueError(f"vring_base is {vring_base:#x}, must be from 0 to {limit:#x}")
        base, above = vring_base & U16, vring_base >> 16
        used = above if self.packed else base if next_used is None else next_used
        return attrs.evolve(self, next_avail=base, next_used=used)


def place_of(state: QueueState) -> RingPlace:
    """Where the ring of a state stands."""
    names = [field.name for field in attrs.fields(RingPlace)]
    return RingPlace(**{name: getattr(state, name) for name in names})


def state_at(state: QueueState, place: RingPlace) -> QueueState:
    """The state of a queue that goes on at a place, with what was negotiated before.

    The other backend may have completed chains without a decision about the interrupt: as if everything had
    been used since the last one, so that the next decision is for an interrupt if the driver wants any.
    """
    moved = attrs.asdict(place)
    return attrs.evolve(state, **moved, ready=True, num_added=_MANY, popped=0, held=(), broken=None)


def reset_ring(state: QueueState) -> QueueState:
    """The state after a reset of this queue alone (VIRTIO 1.2, 2.6.1): what was negotiated stays."""
    start = ring_position(0, state.max_size, packed=state.packed)
    fresh = QueueState(max_size=state.max_size, size=state.max_size)
    kept = {
        name: getattr(state, name) for name in ("event_idx", "indirect", "packed", "in_order", "compatible")
    }
    return attrs.evolve(fresh, **kept, next_avail=start, next_used=start)


@attrs.frozen
class NotificationData:
    """What a driver writes when VIRTIO_F_NOTIFICATION_DATA was negotiated (VIRTIO 1.2, 2.9).

    A hint: a device polls the ring whatever it says.

    Attributes:
        queue: Index of the queue, 16 bits.
        position: Where the driver puts its next chain: the available index of a split ring; in a packed one
            15 bits of index with the wrap counter as bit 15.
    """

    queue: int
    position: int

    @classmethod
    def decode(cls, value: int) -> Self:
        """Take a notification apart.

        Args:
            value: What was written, 32 bits.

        Raises:
            ValueError: It has more bits.
        """
        if not 0 <= value <= U32:
            raise ValueError(f"notification is {value:#x}, must be from 0 to {U32:#x}")
        return cls(value & U16, value >> 16)

    def encode(self) -> int:
        """What a driver writes."""
        return self.queue | self.position << 16

    @property
    def next_offset(self) -> int:
        """Packed: index of the next descriptor."""
        return self.position & ~WRAP

    @property
    def next_wrap(self) -> bool:
        """Packed: the driver's wrap counter."""
        return bool(self.position & WRAP)
