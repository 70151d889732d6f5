"""The queues of one device: rings, what the driver wrote about them, and what they count.

They are made when the driver first looks for them. A machine starts without them and without virtio-queue,
and a device that no driver finds never has any.
"""

from virtio_queue import DriverError, Queue, QueueState, VirtioQueueError, VirtQueue
from vmm_memory import GuestMemory

from virtio_devices._errors import SavedStateError
from virtio_devices._host_state import QueueRegisters
from virtio_devices._spec import Feature
from virtio_devices._tally import QueueStats, QueueTally

__all__ = ("HostQueues",)


class HostQueues:
    """All queues of a device, by index; register accesses are serialised by the transport."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self.rings: list[VirtQueue] = [Queue(size) for size in sizes]
        self.registers = [QueueRegisters(size) for size in sizes]
        self.tallies = [QueueTally() for _ in sizes]

    def set_up(self, index: int, features: int, memory: GuestMemory) -> str | None:
        """Take over what the driver wrote about a queue; returns what is wrong with it, None for nothing."""
        queue, registers = self.rings[index], self.registers[index]
        queue.reset()
        try:
            queue.packed = bool(features & Feature.RING_PACKED)
            queue.size = registers.size
            queue.desc_table = registers.desc_table
            queue.avail_ring = registers.avail_ring
            queue.used_ring = registers.used_ring
            queue.event_idx = bool(features & Feature.EVENT_IDX)
            queue.indirect = bool(features & Feature.INDIRECT_DESC)
            queue.ready = True
            queue.check(memory)
        except DriverError as error:
            queue.reset()
            return str(error)
        return None

    def forget(self, index: int) -> None:
        """Bring one queue back to its state after power-on; what it counted is kept."""
        self.tallies[index].retire(self.rings[index])
        self.rings[index].reset()
        self.registers[index] = QueueRegisters(self._sizes[index])

    def forget_all(self) -> None:
        """The same for all, with new rings: whoever still holds one of the old has no part in them."""
        for index, size in enumerate(self._sizes):
            self.forget(index)
            self.rings[index] = Queue(size)

    def stats(self) -> tuple[QueueStats, ...]:
        """What each queue did so far; those in work may be a moment ahead."""
        return tuple(tally.stats(queue) for tally, queue in zip(self.tallies, self.rings, strict=True))

    def saved_rings(self, states: tuple[QueueState, ...]) -> list[VirtQueue]:
        """Return rings of saved states, for `take_over`.

        Raises:
            SavedStateError: one cannot be a queue's.
        """
        try:
            return [Queue.from_state(state) for state in states]
        except VirtioQueueError as error:
            raise SavedStateError("queues", states, "states that a queue accepts") from error

    def take_over(self, rings: list[VirtQueue], registers: tuple[tuple[int, int, int, int], ...]) -> None:
        """Go on with restored rings, and what the driver last wrote."""
        self.rings[:] = rings
        self.registers[:] = [QueueRegisters(*values) for values in registers]
