"""The split ring in readable Python (VIRTIO 1.2, 2.7)."""

from collections.abc import Collection, Sequence

from vmm_memory import GuestMemory, MemoryOrder

from virtio_queue._completion import refusal
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import (
    AVAIL_NO_INTERRUPT,
    RING_ELEMENTS,
    RING_FLAGS,
    RING_IDX,
    U16,
    USED_NO_NOTIFY,
    avail_event_offset,
    used_event_offset,
)
from virtio_queue._state import HeldChain
from virtio_queue.testing._twin_ring import MANY, Registers, Taken
from virtio_queue.testing._walk import ChainWalk
from virtio_queue.testing._walk_compatible import CompatibleWalk


class SplitRing:
    """Free-running indices; the difference of the two is what is in flight."""

    def __init__(self, registers: Registers) -> None:
        self._regs = registers
        self.next_avail = self.next_used = self.num_added = self.popped = 0
        self._heads: list[int] = []  # in flight, as popped; which are complete is known only in order

    @property
    def in_flight(self) -> int:
        """See `Ring.in_flight`."""
        return (self.next_avail - self.next_used) & U16

    @property
    def held(self) -> tuple[HeldChain, ...]:
        """See `Ring.held`."""
        if not self._regs.in_order:
            return ()
        places = [(self.next_used + offset) & U16 for offset in range(self.in_flight)]
        return tuple(HeldChain(head, 1, place) for head, place in zip(self._heads, places, strict=True))

    def restore(self, held: Sequence[HeldChain]) -> None:
        """Have these chains in flight."""
        self._heads = [chain.head for chain in held]

    def _waiting(self, mem: GuestMemory) -> int:
        index = mem.load(self._regs.avail_ring + RING_IDX, 2, MemoryOrder.ACQUIRE)
        waiting = (index - self.next_avail) & U16
        room = max(self._regs.size - self.in_flight, 0)
        if waiting > room:
            raise self._regs.breaks(DriverError(Reason.AVAILABLE_INDEX, value=waiting, limit=room))
        return waiting

    def take(self, mem: GuestMemory, room: int) -> Taken | None:
        """See `Ring.take`."""
        regs = self._regs
        if self._waiting(mem) == 0:
            return None
        head = mem.load(regs.avail_ring + RING_ELEMENTS + 2 * (self.next_avail % regs.size), 2)
        if head >= regs.size:
            raise regs.breaks(DriverError(Reason.HEAD, head=head, value=head, limit=regs.size))
        kind = CompatibleWalk if regs.compatible else ChainWalk
        walk = kind(mem, head, regs.desc_table, regs.size, regs.indirect, room)
        error = None
        try:
            walk.run()
        except DriverError as broken:
            error = broken
        regs.count(tables=walk.tables)
        self.next_avail = (self.next_avail + 1) & U16  # taken, even when broken
        self._heads.append(head)
        return Taken(head, tuple(walk.segments), error)

    def give_back(self, count: int) -> bool:
        """See `Ring.give_back`."""
        self.next_avail = (self.next_avail - count) & U16
        del self._heads[-count:]
        return True

    def refusal(self, heads: Sequence[int]) -> str | None:
        """See `Ring.refusal`."""
        oldest = self._heads if self._regs.in_order else None
        return refusal(heads, self._regs.size, self.in_flight, oldest=oldest)

    def complete(
        self, mem: GuestMemory, used: Sequence[tuple[int, int]], silent: Collection[int] = ()
    ) -> None:
        """See `Ring.complete`."""
        place = self.next_used
        for offset, (head, written) in enumerate(used):
            if offset in silent:
                continue
            element = self._regs.used_ring + RING_ELEMENTS + 8 * (place % self._regs.size)
            place = self.next_used + offset + 1
            mem.store(element, 4, head)
            mem.store(element + 4, 4, written)
        index = (self.next_used + len(used)) & U16
        # Sequentially consistent, for two reasons: as a release it comes after the elements and the data
        # in the buffers; and it comes before the load of the driver's wish in decide.
        mem.store(self._regs.used_ring + RING_IDX, 2, index, MemoryOrder.SEQ_CST)
        wrapped = self.next_used % self._regs.size + len(used) >= self._regs.size
        self._regs.count(chains=len(used), wraps=int(wrapped))
        self.next_used = index
        del self._heads[: len(used)]
        self.num_added = min(self.num_added + len(used), MANY)

    def decide(self, mem: GuestMemory) -> bool:
        """See `Ring.decide`."""
        added, self.num_added = self.num_added, 0
        driver = self._regs.avail_ring
        if self._regs.event_idx:
            event = mem.load(driver + used_event_offset(self._regs.size), 2, MemoryOrder.SEQ_CST)
            notify = (self.next_used - event - 1) & U16 < added
        else:
            flags = mem.load(driver + RING_FLAGS, 2, MemoryOrder.SEQ_CST)
            notify = added > 0 and not flags & AVAIL_NO_INTERRUPT
        self._regs.count(notified=int(notify), suppressed=int(added > 0 and not notify))
        return notify

    def ask(self, mem: GuestMemory) -> bool:
        """See `Ring.ask`."""
        regs = self._regs
        # Store and load sequentially consistent: the wish is visible before the index is looked at again.
        if regs.event_idx:
            event = regs.used_ring + avail_event_offset(regs.size)
            mem.store(event, 2, self.next_avail, MemoryOrder.SEQ_CST)
        else:
            mem.store(regs.used_ring + RING_FLAGS, 2, 0, MemoryOrder.SEQ_CST)
        return mem.load(regs.avail_ring + RING_IDX, 2, MemoryOrder.SEQ_CST) != self.next_avail

    def hush(self, mem: GuestMemory) -> None:
        """See `Ring.hush`: with event index the stale event asks for silence already."""
        if not self._regs.event_idx:
            mem.store(self._regs.used_ring + RING_FLAGS, 2, USED_NO_NOTIFY)
