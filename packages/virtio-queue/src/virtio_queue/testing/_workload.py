"""A ready-made ring for benchmarks: the same chains over and over, refilled with one store."""

from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._protocol import VirtQueue
from virtio_queue.testing._driver import Driver
from virtio_queue.testing._rings import RingLayout


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
    ) -> None:
        layout = RingLayout.at(base, size)
        layout.configure(queue, event_idx=event_idx, indirect=indirect)
        arena = (layout.end, base + room - layout.end)
        self._driver = Driver(memory, layout, event_idx=event_idx, indirect=indirect, arena=arena)
        self._chains = chains
        self._index = 0
        data = layout.end + (16 * descriptors * chains if indirect else 0)
        heads = [self._add(data, index, descriptors, buffer, indirect) for index in range(chains)]
        # The same heads in every slot of the ring: a refill is then nothing but a new index.
        for slot in range(size):
            self._driver.raw.write_available(slot, heads[slot % chains])

    def _add(self, data: int, index: int, descriptors: int, buffer: int, indirect: bool) -> int:
        start = data + index * descriptors * buffer
        segments = [
            Segment(start + position * buffer, buffer, position >= descriptors // 2)
            for position in range(descriptors)
        ]
        return self._driver.add(segments, indirect=indirect, announce=False)

    def refill(self) -> None:
        """Announce `chains` further chains; all earlier ones must have been completed."""
        self._index = (self._index + self._chains) & 0xFFFF
        self._driver.raw.set_avail_idx(self._index)
