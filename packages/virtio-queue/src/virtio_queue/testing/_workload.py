"""A ready-made ring for benchmarks: the same chains over and over."""

from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._layout import DESC_AVAIL, DESC_USED, PACKED_DESCRIPTOR
from virtio_queue._protocol import VirtQueue
from virtio_queue.testing._driver import Driver
from virtio_queue.testing._rings import RawRings, RingLayout


class BatchWorkload:
    """Keeps a queue supplied with equal chains, so that only `pop_batch` and `complete_batch` need be timed.

    Each round: `refill()`, then `pop_batch` until `chains` were popped, then `complete_batch`.

    Args:
        memory: The guest's memory.
        queue: Is configured; must be fresh or reset.
        base: Where rings, tables and buffers may lie.
        room: Bytes from there on.
        size: Entries of the queue; holds `chains` chains.
        chains: Chains per round.
        descriptors: Buffers per chain; the first half is readable, the rest writable.
        buffer: Bytes per buffer.
        indirect: Chains as indirect tables.
        event_idx: Negotiate event index.
        packed: Format of the ring.
    """

    def __init__(
        self,
        memory: GuestMemory,
        queue: VirtQueue,
        *,
        base: int,
        room: int,
        size: int = 256,
        chains: int = 64,
        descriptors: int = 2,
        buffer: int = 64,
        indirect: bool = False,
        event_idx: bool = False,
        packed: bool = False,
    ) -> None:
        layout = RingLayout.at(base, size, packed=packed)
        layout.configure(queue, event_idx=event_idx, indirect=indirect)
        arena = (layout.end, base + room - layout.end)
        self._memory, self._layout = memory, layout
        self._driver = Driver(memory, layout, event_idx=event_idx, indirect=indirect, arena=arena)
        self._chains = chains
        self._index = 0
        # From a page on, as guests have it: no buffer of a page or less then lies over the end of a region.
        data = -(-(layout.end + (16 * descriptors * chains if indirect else 0)) // 4096) * 4096
        heads = [self._add(data, index, descriptors, buffer, indirect) for index in range(chains)]
        if packed:
            self._driver.publish()
            per_round = chains if indirect else chains * descriptors
            self._ring = layout.desc_table
            self._rows = [self._template(slot) for slot in range(per_round)]
            self._images: dict[int, list[tuple[int, bytes]]] = {}
            return
        # The same heads in every slot of the ring: a refill is then nothing but a new index.
        self._raw = RawRings(memory, layout)
        for slot in range(size):
            self._raw.write_available(slot, heads[slot % chains])

    def _template(self, slot: int) -> tuple[int, int, int, int]:
        """A descriptor that the driver placed, without the flags of its lap; it is taken out of the ring."""
        raw = self._memory.read(self._ring + PACKED_DESCRIPTOR.size * slot, PACKED_DESCRIPTOR.size)
        self._memory.write(self._ring + PACKED_DESCRIPTOR.size * slot, bytes(PACKED_DESCRIPTOR.size))
        addr, length, head, flags = PACKED_DESCRIPTOR.unpack(raw)
        return addr, length, head, flags & ~(DESC_AVAIL | DESC_USED)

    def _add(self, data: int, index: int, descriptors: int, buffer: int, indirect: bool) -> int:
        start = data + index * descriptors * buffer
        segments = [
            Segment(start + position * buffer, buffer, position >= descriptors // 2)
            for position in range(descriptors)
        ]
        return self._driver.add(segments, indirect=indirect, announce=False)

    def refill(self) -> None:
        """Announce `chains` further chains; all earlier ones must have been completed."""
        if not self._layout.packed:
            self._index = (self._index + self._chains) & 0xFFFF
            self._raw.set_avail_idx(self._index)
            return
        place = self._index % (2 * self._layout.size)
        if place not in self._images:
            self._images[place] = self._image(place)
        for addr, data in self._images[place]:
            self._memory.write(addr, data)
        self._index += len(self._rows)

    def _image(self, place: int) -> list[tuple[int, bytes]]:
        """What a round writes from a position on: one block, or two when it comes to the end of the ring."""
        size, slot = self._layout.size, place % self._layout.size
        rows = b"".join(
            PACKED_DESCRIPTOR.pack(
                *row[:3], row[3] | (DESC_USED if (place + offset) // size % 2 else DESC_AVAIL)
            )
            for offset, row in enumerate(self._rows)
        )
        cut = PACKED_DESCRIPTOR.size * (size - slot)
        blocks = [(self._ring + PACKED_DESCRIPTOR.size * slot, rows[:cut]), (self._ring, rows[cut:])]
        return [block for block in blocks if block[1]]
