"""The queue once more, in readable Python: the oracle of the C core, and a way to learn the formats."""

from collections.abc import Sequence
from typing import Self

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._counters import QueueCounters
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import (
    BATCH_BYTES,
    U16,
    U32,
    U64,
    WRAP,
    check_max_size,
    check_register,
    is_packed_size,
    is_queue_size,
    ring_parts,
)
from virtio_queue._place import RingPlace, place_of, reset_ring, state_at
from virtio_queue._state import QueueState
from virtio_queue.testing._twin_packed import PackedRing
from virtio_queue.testing._twin_ring import Registers
from virtio_queue.testing._twin_split import SplitRing
from virtio_queue.testing._walk import NoRoomError


class TwinQueue:
    """Pure-Python device side of a virtqueue: interface, results and errors of `virtio_queue.Queue`.

    Works on any `GuestMemory`, also one without an access map. Python has no fences; where the C core puts
    one between a store and a load, both are sequentially consistent here, which orders them just as well.

    Args:
        max_size: Most entries a driver may choose, 1 to 32768.

    Raises:
        ValueError: `max_size` is no queue size.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = check_max_size(max_size)
        self.reset()

    def reset(self) -> None:
        """See `Queue.reset`."""
        self._regs = Registers(self._max_size)
        self._ring: SplitRing | PackedRing = SplitRing(self._regs)

    @property
    def packed(self) -> bool:
        """See `Queue.packed`."""
        return isinstance(self._ring, PackedRing)

    @packed.setter
    def packed(self, value: bool) -> None:
        if value == self.packed:
            return
        self._renew("packed", value)
        self._ring = PackedRing(self._regs) if value else SplitRing(self._regs)

    @property
    def in_order(self) -> bool:
        """See `Queue.in_order`."""
        return self._regs.in_order

    @in_order.setter
    def in_order(self, value: bool) -> None:
        if value == self.in_order:
            return
        self._renew("in_order", value)
        self._regs.in_order = value
        self._ring = PackedRing(self._regs) if self.packed else SplitRing(self._regs)

    def _renew(self, name: str, value: bool) -> None:
        if self.in_flight:
            raise ValueError(f"{name} cannot become {value} with {self.in_flight} chains in flight")
        self._regs.broken, self._regs.counters = None, QueueCounters()

    @property
    def ready(self) -> bool:
        """See `Queue.ready`."""
        return self._regs.ready

    @ready.setter
    def ready(self, value: bool) -> None:
        self._regs.ready = value

    @property
    def event_idx(self) -> bool:
        """See `Queue.event_idx`."""
        return self._regs.event_idx

    @event_idx.setter
    def event_idx(self, value: bool) -> None:
        self._regs.event_idx = value

    @property
    def indirect(self) -> bool:
        """See `Queue.indirect`."""
        return self._regs.indirect

    @indirect.setter
    def indirect(self, value: bool) -> None:
        self._regs.indirect = value

    @property
    def compatible(self) -> bool:
        """See `Queue.compatible`."""
        return self._regs.compatible

    @compatible.setter
    def compatible(self, value: bool) -> None:
        self._regs.compatible = value

    @property
    def max_size(self) -> int:
        """See `Queue.max_size`."""
        return self._max_size

    @property
    def next_avail(self) -> int:
        """See `Queue.next_avail`."""
        return self._ring.next_avail

    @property
    def next_used(self) -> int:
        """See `Queue.next_used`."""
        return self._ring.next_used

    @property
    def in_flight(self) -> int:
        """See `Queue.in_flight`."""
        return self._ring.in_flight

    @property
    def broken(self) -> DriverError | None:
        """See `Queue.broken`."""
        return self._regs.broken

    @property
    def counters(self) -> QueueCounters:
        """See `Queue.counters`."""
        return self._regs.counters

    @property
    def size(self) -> int:
        """See `Queue.size`."""
        return self._regs.size

    @size.setter
    def size(self, value: int) -> None:
        self._regs.size = check_register("size", value, U16)

    @property
    def desc_table(self) -> int:
        """See `Queue.desc_table`."""
        return self._regs.desc_table

    @desc_table.setter
    def desc_table(self, value: int) -> None:
        self._regs.desc_table = check_register("desc_table", value, U64)

    @property
    def avail_ring(self) -> int:
        """See `Queue.avail_ring`."""
        return self._regs.avail_ring

    @avail_ring.setter
    def avail_ring(self, value: int) -> None:
        self._regs.avail_ring = check_register("avail_ring", value, U64)

    @property
    def used_ring(self) -> int:
        """See `Queue.used_ring`."""
        return self._regs.used_ring

    @used_ring.setter
    def used_ring(self, value: int) -> None:
        self._regs.used_ring = check_register("used_ring", value, U64)

    def is_valid(self, mem: GuestMemory) -> bool:
        """See `Queue.is_valid`."""
        try:
            self.check(mem)
        except DriverError:
            return False
        return True

    def check(self, mem: GuestMemory) -> None:
        """See `Queue.check`."""
        regs = self._regs
        if not regs.ready:
            raise DriverError(Reason.NOT_READY, value=0, limit=1)
        legal = is_packed_size(regs.size) if self.packed else is_queue_size(regs.size)
        if not legal or regs.size > self._max_size:
            raise DriverError(Reason.RING_SIZE, value=regs.size, limit=self._max_size)
        if self.packed:
            for position in (self.next_avail, self.next_used):
                if position & ~WRAP >= regs.size:
                    raise DriverError(Reason.RING_POSITION, value=position & ~WRAP, limit=regs.size)
            if (busy := sum(chain.descriptors for chain in self._ring.held)) > regs.size:
                raise DriverError(Reason.RING_POSITION, value=busy, limit=regs.size)
        addresses = (regs.desc_table, regs.avail_ring, regs.used_ring)
        parts = ring_parts(regs.size, packed=self.packed)
        for part, (addr, (length, align, write)) in enumerate(zip(addresses, parts, strict=True)):
            if addr % align:
                raise DriverError(Reason.RING_ALIGNMENT, position=part, value=addr, limit=align)
            if not mem.check_range(addr, length, write=write):
                raise DriverError(Reason.RING_ADDRESS, position=part, value=addr, limit=length)

    def _raise_broken(self) -> None:
        if self._regs.broken is not None:
            raise self._regs.broken.with_traceback(None)

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """See `Queue.pop`."""
        self._raise_broken()
        self.check(mem)
        taken = self._ring.take(mem, self.size)
        if taken is None:
            return None
        if taken.error is not None:
            raise taken.error
        return DescriptorChain(taken.head, taken.segments, mem)

    def pop_batch(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """See `Queue.pop_batch`."""
        batch.clear()
        self._raise_broken()
        self.check(mem)
        if batch.max_segments < self.size:
            raise ValueError(f"batch has room for {batch.max_segments} segments, queue size is {self.size}")
        room = BATCH_BYTES
        try:
            while len(batch) < batch.max_chains and room > 0:
                room -= self._pop_into(mem, batch)
        except (NoRoomError, StopIteration):
            pass
        except DriverError:
            # The queue is broken. Chains from before are good; the next call raises this again.
            if len(batch) == 0:
                raise
        return len(batch)

    def _pop_into(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """Take one chain; returns its bytes, 0 for a broken one. StopIteration: there is none."""
        taken = self._ring.take(mem, batch.free_segments)
        if taken is None:
            raise StopIteration
        batch.append(taken.head, taken.segments, error=0 if taken.error is None else -taken.error.reason)
        return 0 if taken.error else sum(segment.len for segment in taken.segments)

    def undo_pop(self, count: int = 1) -> None:
        """See `Queue.undo_pop`."""
        if not 1 <= count <= self.in_flight:
            raise ValueError(f"cannot give {count} chains back, {self.in_flight} are in flight")
        if not self._ring.give_back(count):
            raise ValueError(f"cannot give {count} chains back, of the last {count} some were completed")

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """See `Queue.add_used`."""
        check_register("head", head, U16)
        check_register("written", written, U32)
        self.check(mem)
        self._complete(mem, [(head, written)])

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """See `Queue.complete_batch`."""
        self.check(mem)
        records = batch.records()
        for _first, _count, head, written, _error, _readable, writable in records:
            if written > writable:
                raise ValueError(f"chain {head}: {written} bytes written, {writable} writable")
        last = len(records) - 1
        # In order, what was used completely needs no element of its own before the last one (2.7.9, 2.8.9).
        silent = [
            index
            for index, (_first, _count, _head, written, error, _readable, room) in enumerate(records)
            if self.in_order and index < last and not error and written == room
        ]
        self._complete(mem, [(record[2], record[3]) for record in records], silent)
        return self._ring.decide(mem)

    def _complete(
        self, mem: GuestMemory, used: Sequence[tuple[int, int]], silent: Sequence[int] = ()
    ) -> None:
        refusal = self._ring.refusal([head for head, _written in used])
        if refusal is not None:
            raise ValueError(refusal)
        if used:
            self._ring.complete(mem, used, silent)

    def needs_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.needs_notification`."""
        self.check(mem)
        return self._ring.decide(mem)

    def enable_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.enable_notification`."""
        if self._regs.broken is not None:
            return False
        self.check(mem)
        return self._ring.ask(mem)

    def disable_notification(self, mem: GuestMemory) -> None:
        """See `Queue.disable_notification`."""
        if self._regs.broken is not None:
            return
        self.check(mem)
        self._ring.hush(mem)

    def reset_ring(self) -> None:
        """See `Queue.reset_ring`."""
        new = type(self).from_state(reset_ring(self.state()))
        self._regs, self._ring = new._regs, new._ring

    def detach(self) -> RingPlace:
        """See `Queue.detach`."""
        if self.in_flight:
            raise ValueError(f"cannot detach the ring with {self.in_flight} chains in flight")
        self.ready = False
        return place_of(self.state())

    def attach(self, place: RingPlace, mem: GuestMemory | None = None) -> None:
        """See `Queue.attach`."""
        if self.in_flight:
            raise ValueError(f"cannot attach a ring with {self.in_flight} chains in flight")
        new = type(self).from_state(state_at(self.state(), place), mem)
        self._regs, self._ring = new._regs, new._ring

    def state(self) -> QueueState:
        """See `Queue.state`."""
        regs, ring = self._regs, self._ring
        return QueueState(
            max_size=self._max_size,
            size=regs.size,
            ready=regs.ready,
            desc_table=regs.desc_table,
            avail_ring=regs.avail_ring,
            used_ring=regs.used_ring,
            event_idx=regs.event_idx,
            indirect=regs.indirect,
            compatible=regs.compatible,
            packed=self.packed,
            in_order=self.in_order,
            next_avail=ring.next_avail,
            next_used=ring.next_used,
            num_added=ring.num_added,
            popped=ring.popped,
            held=ring.held,
            broken=None if regs.broken is None else regs.broken.reason,
        )

    @classmethod
    def from_state(cls, state: QueueState, mem: GuestMemory | None = None) -> Self:
        """See `Queue.from_state`."""
        queue = cls(state.max_size)
        queue.packed, queue.in_order = state.packed, state.in_order
        regs, ring = queue._regs, queue._ring
        regs.size, regs.ready = state.size, state.ready
        regs.desc_table, regs.avail_ring, regs.used_ring = state.desc_table, state.avail_ring, state.used_ring
        regs.event_idx, regs.indirect = state.event_idx, state.indirect
        regs.compatible = state.compatible
        ring.next_avail, ring.next_used = state.next_avail, state.next_used
        ring.num_added, ring.popped = state.num_added, state.popped
        ring.restore(state.held)
        regs.broken = None if state.broken is None else DriverError(state.broken)
        if mem is not None and state.ready:
            queue.check(mem)
        return queue
