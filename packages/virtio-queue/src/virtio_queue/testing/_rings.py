"""Where the three parts of a split queue lie, and raw access to them as a driver has it."""

from typing import Self

import attrs
from vmm_memory import GuestMemory, MemoryOrder

from virtio_queue._layout import (
    DESCRIPTOR,
    RING_ELEMENTS,
    RING_FLAGS,
    RING_IDX,
    avail_event_offset,
    avail_ring_bytes,
    descriptor_table_bytes,
    is_queue_size,
    used_event_offset,
    used_ring_bytes,
)
from virtio_queue._protocol import VirtQueue


def _align(value: int, to: int) -> int:
    return -(-value // to) * to


@attrs.frozen
class RingLayout:
    """Guest addresses of a split queue.

    Attributes:
        size: Entries, a power of two from 1 to 32768.
        desc_table: Address of the descriptor table.
        avail_ring: Address of the available ring.
        used_ring: Address of the used ring.
    """

    size: int
    desc_table: int
    avail_ring: int
    used_ring: int

    @classmethod
    def at(cls, base: int, size: int) -> Self:
        """The three parts behind one another, each as aligned as it must be.

        Args:
            base: First guest address that may be used.
            size: Entries, a power of two from 1 to 32768.

        Raises:
            ValueError: `size` is no queue size.
        """
        if not is_queue_size(size):
            raise ValueError(f"queue size is {size}, must be a power of two from 1 to 32768")
        desc = _align(base, 16)
        avail = desc + descriptor_table_bytes(size)
        return cls(size, desc, avail, _align(avail + avail_ring_bytes(size), 4))

    @property
    def end(self) -> int:
        """First address behind the used ring."""
        return self.used_ring + used_ring_bytes(self.size)

    def configure(self, queue: VirtQueue, *, event_idx: bool = False, indirect: bool = False) -> None:
        """Do what a transport does: set the registers of the queue and make it ready."""
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
