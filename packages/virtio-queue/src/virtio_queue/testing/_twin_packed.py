"""The packed ring in readable Python (VIRTIO 1.2, 2.8)."""

from collections.abc import Collection, Iterator, Sequence

import attrs
from vmm_memory import GuestMemory, MemoryOrder

from virtio_queue._chain import Segment
from virtio_queue._completion import refusal
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import (
    DESC_AVAIL,
    DESC_INDIRECT,
    DESC_NEXT,
    DESC_USED,
    DESC_WRITE,
    DESCRIPTOR,
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    PACKED_DESCRIPTOR,
    PACKED_START,
    U16,
    U32,
    WRAP,
    packed_back,
    packed_move,
)
from virtio_queue._state import HeldChain
from virtio_queue.testing._twin_ring import MANY, Registers, Taken
from virtio_queue.testing._walk import ChainWalk

_STATE = DESC_AVAIL | DESC_USED
_FLAGS_OFFSET = 14


@attrs.define
class ListWalk(ChainWalk):
    """Walks one list of a packed ring: consecutive elements, or one that leads to a table of them."""

    def elements(self, slot: int, free: int) -> Iterator[tuple[int, int, int, int]]:
        """Each element from `slot` on as (address, length, id, flags), up to the one without NEXT.

        Raises:
            DriverError: It is not among the `free` ones that the device does not have already.
        """
        for offset in range(free):
            addr = self.desc_table + PACKED_DESCRIPTOR.size * ((slot + offset) % self.size)
            raw = PACKED_DESCRIPTOR.unpack(self.memory.read(addr, PACKED_DESCRIPTOR.size))
            yield raw
            if not raw[3] & DESC_NEXT:
                return
        raise DriverError(Reason.ENDLESS, value=self.size, limit=free)

    def accept(self, offset: int, addr: int, length: int, flags: int) -> None:
        """Check the element at `offset` of the list, and add what it stands for to `segments`."""
        if not flags & DESC_INDIRECT:
            self._accept(Segment(addr, length, bool(flags & DESC_WRITE)))
            return
        if not self.indirect:
            raise self._fault(Reason.INDIRECT_NOT_NEGOTIATED, flags, 0)
        if flags & DESC_NEXT or offset:  # 2.8.19: a list has no more than one kind of element
            raise self._fault(Reason.INDIRECT_WITH_NEXT, flags, 0)
        if length == 0 or length % DESCRIPTOR.size:
            raise self._fault(Reason.TABLE_SIZE, length, DESCRIPTOR.size)
        if not self.memory.check_range(addr, length):
            raise self._fault(Reason.TABLE_ADDRESS, addr, length)
        self.tables += 1
        for entry in range(addr, addr + length, DESCRIPTOR.size):
            raw = PACKED_DESCRIPTOR.unpack(self.memory.read(entry, DESCRIPTOR.size))
            # 2.8.7: id and all flags but WRITE are to be ignored in a table.
            self._accept(Segment(raw[0], raw[1], bool(raw[3] & DESC_WRITE)))


class PackedRing:
    """Positions are 15 bits of index and a wrap counter; chains are known by their buffer id."""

    def __init__(self, registers: Registers) -> None:
        self._regs = registers
        self.next_avail = self.next_used = PACKED_START
        self.num_added = self.popped = 0
        self._held: dict[int, tuple[int, int]] = {}  # id -> (descriptors, running number), as popped

    @property
    def in_flight(self) -> int:
        """See `Ring.in_flight`."""
        return len(self._held)

    @property
    def held(self) -> tuple[HeldChain, ...]:
        """See `Ring.held`."""
        return tuple(HeldChain(head, *rest) for head, rest in self._held.items())

    def restore(self, held: Sequence[HeldChain]) -> None:
        """Have these chains in flight."""
        self._held = {chain.head: (chain.descriptors, chain.order) for chain in held}

    def _descriptor(self, position: int) -> int:
        return self._regs.desc_table + PACKED_DESCRIPTOR.size * (position & ~WRAP)

    def _available(self, mem: GuestMemory, order: MemoryOrder) -> bool:
        flags = mem.load(self._descriptor(self.next_avail) + _FLAGS_OFFSET, 2, order)
        return flags & _STATE == (DESC_AVAIL if self.next_avail & WRAP else DESC_USED)

    def take(self, mem: GuestMemory, room: int) -> Taken | None:
        """See `Ring.take`."""
        regs = self._regs
        if not self._available(mem, MemoryOrder.ACQUIRE):
            return None
        free = max(regs.size - sum(count for count, _ in self._held.values()), 0)
        if free == 0:
            raise regs.breaks(DriverError(Reason.AVAILABLE_INDEX, value=1, limit=0))
        walk = ListWalk(mem, 0, regs.desc_table, regs.size, regs.indirect, room)
        fault: DriverError | None = None
        count = head = 0
        try:
            for addr, length, last_id, flags in walk.elements(self.next_avail & ~WRAP, free):
                # Behind the first fault nothing more is accepted, but the end of the list must be found:
                # it has the id, and the next list begins behind it.
                if fault is None:
                    fault = _fault_of(walk, count, addr, length, flags)
                count, head = count + 1, last_id
        except DriverError as endless:
            raise regs.breaks(endless) from None
        if head in self._held:
            raise regs.breaks(DriverError(Reason.BUFFER_ID, head=head, value=head, limit=U16))
        regs.count(tables=walk.tables)
        self._held[head] = (count, self.popped)
        self.popped = (self.popped + 1) & U32
        self.next_avail = packed_move(self.next_avail, count, regs.size)
        return Taken(head, tuple(walk.segments), None if fault is None else _named(fault, head))

    def give_back(self, count: int) -> bool:
        """See `Ring.give_back`."""
        last = list(self._held.items())[-count:]
        if [order for _head, (_count, order) in last] != [
            (self.popped - back) & U32 for back in range(count, 0, -1)
        ]:
            return False
        for head, (descriptors, _order) in reversed(last):
            del self._held[head]
            self.next_avail = packed_back(self.next_avail, descriptors, self._regs.size)
        self.popped = (self.popped - count) & U32
        return True

    def refusal(self, heads: Sequence[int]) -> str | None:
        """See `Ring.refusal`."""
        oldest = list(self._held) if self._regs.in_order else None
        return refusal(heads, self._regs.size, self.in_flight, self._held.__contains__, oldest)

    def complete(
        self, mem: GuestMemory, used: Sequence[tuple[int, int]], silent: Collection[int] = ()
    ) -> None:
        """See `Ring.complete`."""
        start = position = self.next_used
        places = []
        for offset, (head, written) in enumerate(used):
            count, _order = self._held.pop(head)
            position = packed_move(position, count, self._regs.size)
            self.num_added = min(self.num_added + count, MANY)
            if offset not in silent:
                places.append((start, head, written))
                start = position
        # The driver looks at the first of them only: behind that one the order does not matter, and one
        # store makes the whole batch visible. Sequentially consistent as in the split ring.
        for place, head, written in reversed(places):
            descriptor = self._descriptor(place)
            mem.store(descriptor + 8, 4, written)
            mem.store(descriptor + 12, 2, head)
            flags = (_STATE if place & WRAP else 0) | (DESC_WRITE if written else 0)
            mem.store(descriptor + _FLAGS_OFFSET, 2, flags, MemoryOrder.SEQ_CST)
        self._regs.count(chains=len(used), wraps=int(bool((self.next_used ^ position) & WRAP)))
        self.next_used = position

    def decide(self, mem: GuestMemory) -> bool:
        """See `Ring.decide`."""
        added, self.num_added = self.num_added, 0
        notify = self._wanted(mem.load(self._regs.avail_ring, 4, MemoryOrder.SEQ_CST), added)
        self._regs.count(notified=int(notify), suppressed=int(added > 0 and not notify))
        return notify

    def _wanted(self, wish: int, added: int) -> bool:
        kind, event, size = wish >> 16 & 3, wish & U16, self._regs.size
        if kind == EVENT_DISABLE:
            return False
        if kind != EVENT_DESC or not self._regs.event_idx or event & ~WRAP >= size:
            return added > 0  # also where the driver's wish means nothing: an interrupt too many is harmless
        # Positions repeat every two laps, in which each (index, wrap counter) occurs once.
        behind = self._lap(self.next_used) - self._lap(event) - 1
        return behind % (2 * size) < added

    def _lap(self, position: int) -> int:
        return (position & ~WRAP) + (self._regs.size if position & WRAP else 0)

    def ask(self, mem: GuestMemory) -> bool:
        """See `Ring.ask`."""
        word = self.next_avail | EVENT_DESC << 16 if self._regs.event_idx else EVENT_ENABLE << 16
        # One store for both halves; and before the flags are looked at again, as in the split ring.
        mem.store(self._regs.used_ring, 4, word, MemoryOrder.SEQ_CST)
        return self._available(mem, MemoryOrder.SEQ_CST)

    def hush(self, mem: GuestMemory) -> None:
        """See `Ring.hush`."""
        mem.store(self._regs.used_ring, 4, EVENT_DISABLE << 16)


def _fault_of(walk: ListWalk, offset: int, addr: int, length: int, flags: int) -> DriverError | None:
    try:
        walk.accept(offset, addr, length, flags)
    except DriverError as fault:
        return fault
    return None


def _named(fault: DriverError, head: int) -> DriverError:
    return DriverError(fault.reason, head=head, position=fault.position, value=fault.value, limit=fault.limit)
