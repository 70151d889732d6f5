"""Where the three parts of a queue lie, and raw access to them as a driver has it."""

from typing import Self

import attrs
from vmm_memory import GuestMemory, MemoryOrder

from virtio_queue._layout import (
    DESCRIPTOR,
    PACKED_DESCRIPTOR,
    RING_ELEMENTS,
    RING_FLAGS,
    RING_IDX,
    U16,
    avail_event_offset,
    is_packed_size,
    is_queue_size,
    ring_parts,
    ring_position,
    used_event_offset,
)
from virtio_queue._protocol import VirtQueue


def _align(value: int, to: int) -> int:
    return -(-value // to) * to


@attrs.frozen
class RingLayout:
    """Format and guest addresses of a queue.

    Attributes:
        size: Entries, 1 to 32768; in a split ring a power of two.
        desc_table: Address of the descriptor table, or of a packed ring.
        avail_ring: Address of the driver area: available ring, or driver event suppression.
        used_ring: Address of the device area: used ring, or device event suppression.
        packed: Format of the ring.
    """

    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    packed: bool = False

    @classmethod
    def at(cls, base: int, size: int, *, packed: bool = False) -> Self:
        """The three parts behind one another, each as aligned as it must be.

        Args:
            base: First guest address that may be used.
            size: Entries, 1 to 32768; in a split ring a power of two.
            packed: Format.

        Raises:
            ValueError: `size` is no queue size.
        """
        if not (is_packed_size(size) if packed else is_queue_size(size)):
            rule = "be from 1 to 32768" if packed else "be a power of two from 1 to 32768"
            raise ValueError(f"queue size is {size}, must {rule}")
        desc = _align(base, 16)
        parts = ring_parts(size, packed=packed)
        avail = _align(desc + parts[0][0], parts[1][1])
        return cls(size, desc, avail, _align(avail + parts[1][0], parts[2][1]), packed)

    @property
    def end(self) -> int:
        """First address behind the device area."""
        return self.used_ring + ring_parts(self.size, packed=self.packed)[2][0]

    def position(self, count: int) -> int:
        """The `next_avail` and `next_used` of a queue that has completed `count` entries (descriptors)."""
        return ring_position(count, self.size, packed=self.packed)

    def configure(
        self, queue: VirtQueue, *, event_idx: bool = False, indirect: bool = False, in_order: bool = False
    ) -> None:
        """Do what a transport does: set the registers of the queue and make it ready."""
        queue.packed, queue.in_order = self.packed, in_order
        queue.size = self.size
        queue.desc_table, queue.avail_ring, queue.used_ring = self.desc_table, self.avail_ring, self.used_ring
        queue.event_idx, queue.indirect = event_idx, indirect
        queue.ready = True


@attrs.frozen
class RawRings:
    """Unchecked driver-side access to the words of a split queue; a hostile driver needs nothing more.

    Attributes:
        memory: The guest's memory.
        layout: Where the parts lie.
    """

    memory: GuestMemory
    layout: RingLayout

    def write_descriptor(
        self, index: int, addr: int, length: int, flags: int = 0, following: int = 0
    ) -> None:
        """Write entry `index` of the descriptor table."""
        raw = DESCRIPTOR.pack(addr, length, flags, following)
        self.memory.write(self.layout.desc_table + DESCRIPTOR.size * index, raw)

    def write_available(self, position: int, head: int) -> None:
        """Put a head into the available ring at a free-running position."""
        slot = RING_ELEMENTS + 2 * (position % self.layout.size)
        self.memory.store(self.layout.avail_ring + slot, 2, head)

    def set_avail_idx(self, value: int) -> None:
        """Announce everything before `value`.

        Sequentially consistent: a release (descriptors and entries come before), and ordered before the load
        of the device's wish that follows.
        """
        self.memory.store(self.layout.avail_ring + RING_IDX, 2, value, MemoryOrder.SEQ_CST)

    def avail_idx(self) -> int:
        """What the driver last announced."""
        return self.memory.load(self.layout.avail_ring + RING_IDX, 2)

    def set_avail_flags(self, value: int) -> None:
        """1 asks for no interrupts (without event index)."""
        self.memory.store(self.layout.avail_ring + RING_FLAGS, 2, value, MemoryOrder.SEQ_CST)

    def set_used_event(self, value: int) -> None:
        """Ask for an interrupt when the used element at `value` is published (with event index)."""
        offset = used_event_offset(self.layout.size)
        self.memory.store(self.layout.avail_ring + offset, 2, value, MemoryOrder.SEQ_CST)

    def used_flags(self) -> int:
        """1: the device asks for no kicks (without event index)."""
        return self.memory.load(self.layout.used_ring + RING_FLAGS, 2, MemoryOrder.SEQ_CST)

    def used_idx(self) -> int:
        """How far the device came; an acquire, for the elements before it."""
        return self.memory.load(self.layout.used_ring + RING_IDX, 2, MemoryOrder.SEQ_CST)

    def set_used_idx(self, value: int) -> None:
        """Begin elsewhere than at 0; a driver never writes it afterwards."""
        self.memory.store(self.layout.used_ring + RING_IDX, 2, value)

    def used_element(self, position: int) -> tuple[int, int]:
        """The (head, length) at a free-running position."""
        element = self.layout.used_ring + RING_ELEMENTS + 8 * (position % self.layout.size)
        return self.memory.load(element, 4), self.memory.load(element + 4, 4)

    def avail_event(self) -> int:
        """Which available entry the device wants to hear of (with event index)."""
        offset = avail_event_offset(self.layout.size)
        return self.memory.load(self.layout.used_ring + offset, 2, MemoryOrder.SEQ_CST)


@attrs.frozen
class PackedRings:
    """Unchecked driver-side access to the words of a packed queue.

    Attributes:
        memory: The guest's memory.
        layout: Where the parts lie.
    """

    memory: GuestMemory
    layout: RingLayout

    def _place(self, slot: int) -> int:
        return self.layout.desc_table + PACKED_DESCRIPTOR.size * slot

    def write_body(self, slot: int, addr: int, length: int, head: int) -> None:
        """Write address, length and buffer id of an element; its flags stay."""
        self.memory.write(self._place(slot), PACKED_DESCRIPTOR.pack(addr, length, head, 0)[:14])

    def set_flags(self, slot: int, flags: int) -> None:
        """Write the flags of an element.

        Sequentially consistent: a release (the body, and later elements, come before), and ordered before the
        load of the device's wish that follows.
        """
        self.memory.store(self._place(slot) + 14, 2, flags, MemoryOrder.SEQ_CST)

    def write_descriptor(self, slot: int, addr: int, length: int, head: int, flags: int) -> None:
        """Write an element, the flags last."""
        self.write_body(slot, addr, length, head)
        self.set_flags(slot, flags)

    def descriptor(self, slot: int) -> tuple[int, int, int, int]:
        """An element as (address, length, id, flags); its flags are read first, an acquire for the rest."""
        flags = self.memory.load(self._place(slot) + 14, 2, MemoryOrder.SEQ_CST)
        addr, length, head, _flags = PACKED_DESCRIPTOR.unpack(self.memory.read(self._place(slot), 16))
        return addr, length, head, flags

    def set_driver_event(self, position: int, flags: int) -> None:
        """Interrupt for which used descriptor? 0 any, 1 none, 2 (event index) the one at `position`."""
        self.memory.store(self.layout.avail_ring, 4, position | flags << 16, MemoryOrder.SEQ_CST)

    def device_event(self) -> tuple[int, int]:
        """The (position, flags) of the device's wish."""
        word = self.memory.load(self.layout.used_ring, 4, MemoryOrder.SEQ_CST)
        return word & U16, word >> 16
