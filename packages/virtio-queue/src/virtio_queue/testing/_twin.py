"""The split queue once more, in readable Python: the oracle of the C core, and a way to learn the format."""

from typing import Self

from vmm_memory import GuestMemory, MemoryOrder

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import (
    AVAIL_NO_INTERRUPT,
    BATCH_BYTES,
    RING_ELEMENTS,
    RING_FLAGS,
    RING_IDX,
    U16,
    U64,
    USED_NO_NOTIFY,
    avail_event_offset,
    avail_ring_bytes,
    check_max_size,
    check_register,
    descriptor_table_bytes,
    is_queue_size,
    used_event_offset,
    used_ring_bytes,
)
from virtio_queue._queue import completion_error
from virtio_queue._state import QueueState
from virtio_queue.testing._walk import ChainWalk, NoRoomError

_MANY = 1 << 16


class TwinQueue:
    """Pure-Python device side of a split virtqueue: interface, results and errors of `virtio_queue.Queue`.

    Works on any `GuestMemory`, also one without an access map. Python has no fences; where the C core puts
    one between a store and a load, both are sequentially consistent here, which orders them just as well.

    Args:
        max_size: Most entries a driver may choose, a power of two from 1 to 32768.

    Raises:
        ValueError: `max_size` is no queue size.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = check_max_size(max_size)
        self.reset()

    def reset(self) -> None:
        """See `Queue.reset`."""
        self._size = self._max_size
        self._desc_table = self._avail_ring = self._used_ring = 0
        self.ready = self.event_idx = self.indirect = False
        self._next_avail = self._next_used = self._num_added = 0
        self._broken: DriverError | None = None

    @property
    def max_size(self) -> int:
        """See `Queue.max_size`."""
        return self._max_size

    @property
    def next_avail(self) -> int:
        """See `Queue.next_avail`."""
        return self._next_avail

    @property
    def next_used(self) -> int:
        """See `Queue.next_used`."""
        return self._next_used

    @property
    def in_flight(self) -> int:
        """See `Queue.in_flight`."""
        return (self._next_avail - self._next_used) & U16

    @property
    def broken(self) -> DriverError | None:
        """See `Queue.broken`."""
        return self._broken

    @property
    def size(self) -> int:
        """See `Queue.size`."""
        return self._size

    @size.setter
    def size(self, value: int) -> None:
        self._size = check_register("size", value, U16)

    @property
    def desc_table(self) -> int:
        """See `Queue.desc_table`."""
        return self._desc_table

    @desc_table.setter
    def desc_table(self, value: int) -> None:
        self._desc_table = check_register("desc_table", value, U64)

    @property
    def avail_ring(self) -> int:
        """See `Queue.avail_ring`."""
        return self._avail_ring

    @avail_ring.setter
    def avail_ring(self, value: int) -> None:
        self._avail_ring = check_register("avail_ring", value, U64)

    @property
    def used_ring(self) -> int:
        """See `Queue.used_ring`."""
        return self._used_ring

    @used_ring.setter
    def used_ring(self, value: int) -> None:
        self._used_ring = check_register("used_ring", value, U64)

    def is_valid(self, mem: GuestMemory) -> bool:
        """See `Queue.is_valid`."""
        try:
            self.check(mem)
        except DriverError:
            return False
        return True

    def check(self, mem: GuestMemory) -> None:
        """See `Queue.check`."""
        if not self.ready:
            raise DriverError(Reason.NOT_READY, value=0, limit=1)
        if not is_queue_size(self._size) or self._size > self._max_size:
            raise DriverError(Reason.RING_SIZE, value=self._size, limit=self._max_size)
        parts = (
            (self._desc_table, descriptor_table_bytes(self._size), 16, False),
            (self._avail_ring, avail_ring_bytes(self._size), 2, False),
            (self._used_ring, used_ring_bytes(self._size), 4, True),
        )
        for position, (addr, length, align, write) in enumerate(parts):
            if addr % align:
                raise DriverError(Reason.RING_ALIGNMENT, position=position, value=addr, limit=align)
            if not mem.check_range(addr, length, write=write):
                raise DriverError(Reason.RING_ADDRESS, position=position, value=addr, limit=length)

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """See `Queue.pop`."""
        if self._waiting(mem) == 0:
            return None
        walk = self._start_walk(mem, self._size)
        self._next_avail = (self._next_avail + 1) & U16  # taken, even when broken
        return DescriptorChain(walk.head, tuple(walk.run()), mem)

    def pop_batch(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """See `Queue.pop_batch`."""
        batch.clear()
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        self.check(mem)
        if batch.max_segments < self._size:
            raise ValueError(f"batch has room for {batch.max_segments} segments, queue size is {self._size}")
        room = BATCH_BYTES
        try:
            for _ in range(min(self._waiting(mem), batch.max_chains)):
                room -= self._pop_into(mem, batch)
                if room <= 0:
                    break
        except NoRoomError:
            pass
        except DriverError:
            # The queue is broken. Chains from before are good; the next call raises this again.
            if len(batch) == 0:
                raise
        return len(batch)

    def _waiting(self, mem: GuestMemory) -> int:
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        self.check(mem)
        index = mem.load(self._avail_ring + RING_IDX, 2, MemoryOrder.ACQUIRE)
        waiting = (index - self._next_avail) & U16
        room = max(self._size - self.in_flight, 0)
        if waiting > room:
            self._broken = DriverError(Reason.AVAILABLE_INDEX, value=waiting, limit=room)
            raise self._broken.with_traceback(None)
        return waiting

    def _start_walk(self, mem: GuestMemory, room: int) -> ChainWalk:
        slot = self._next_avail % self._size
        head = mem.load(self._avail_ring + RING_ELEMENTS + 2 * slot, 2)
        if head >= self._size:
            self._broken = DriverError(Reason.HEAD, head=head, value=head, limit=self._size)
            raise self._broken.with_traceback(None)
        return ChainWalk(mem, head, self._desc_table, self._size, self.indirect, room)

    def _pop_into(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """Take one chain; returns its bytes, 0 for a broken one."""
        walk = self._start_walk(mem, batch.free_segments)
        error = 0
        try:
            walk.run()
        except DriverError as broken:
            error = -broken.reason
        batch.append(walk.head, walk.segments, error=error)
        self._next_avail = (self._next_avail + 1) & U16
        return 0 if error else sum(length for _addr, length, _writable in walk.segments)

    def undo_pop(self, count: int = 1) -> None:
        """See `Queue.undo_pop`."""
        if not 1 <= count <= self.in_flight:
            raise ValueError(f"cannot give {count} chains back, {self.in_flight} are in flight")
        self._next_avail = (self._next_avail - count) & U16

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """See `Queue.add_used`."""
        check_register("head", head, U16)
        check_register("written", written, 0xFFFF_FFFF)
        self.check(mem)
        if head >= self._size or self.in_flight == 0:
            raise ValueError(f"chain {head} of queue size {self._size}, {self.in_flight} chains in flight")
        self._put_used(mem, self._next_used, head, written)
        self._publish(mem, 1)

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """See `Queue.complete_batch`."""
        self.check(mem)
        records = batch.records()
        if len(records) > self.in_flight or any(
            head >= self._size or written > writable for _, _, head, written, _, _, writable in records
        ):
            raise ValueError(completion_error(self, batch))
        for index, record in enumerate(records):
            self._put_used(mem, self._next_used + index, record[2], record[3])
        if records:
            self._publish(mem, len(records))
        return self._decide(mem)

    def _put_used(self, mem: GuestMemory, index: int, head: int, written: int) -> None:
        element = self._used_ring + RING_ELEMENTS + 8 * (index % self._size)
        mem.store(element, 4, head)
        mem.store(element + 4, 4, written)

    def _publish(self, mem: GuestMemory, count: int) -> None:
        index = (self._next_used + count) & U16
        # Sequentially consistent, for two reasons: as a release it comes after the elements and the data
        # in the buffers; and it comes before the load of the driver's wish in _decide.
        mem.store(self._used_ring + RING_IDX, 2, index, MemoryOrder.SEQ_CST)
        self._next_used = index
        self._num_added = min(self._num_added + count, _MANY)

    def needs_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.needs_notification`."""
        self.check(mem)
        return self._decide(mem)

    def _decide(self, mem: GuestMemory) -> bool:
        added, self._num_added = self._num_added, 0
        if self.event_idx:
            event = mem.load(self._avail_ring + used_event_offset(self._size), 2, MemoryOrder.SEQ_CST)
            return (self._next_used - event - 1) & U16 < added
        flags = mem.load(self._avail_ring + RING_FLAGS, 2, MemoryOrder.SEQ_CST)
        return added > 0 and not flags & AVAIL_NO_INTERRUPT

    def enable_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.enable_notification`."""
        if self._broken is not None:
            return False
        self.check(mem)
        # Store and load sequentially consistent: the wish is visible before the index is looked at again.
        if self.event_idx:
            event = self._used_ring + avail_event_offset(self._size)
            mem.store(event, 2, self._next_avail, MemoryOrder.SEQ_CST)
        else:
            mem.store(self._used_ring + RING_FLAGS, 2, 0, MemoryOrder.SEQ_CST)
        return mem.load(self._avail_ring + RING_IDX, 2, MemoryOrder.SEQ_CST) != self._next_avail

    def disable_notification(self, mem: GuestMemory) -> None:
        """See `Queue.disable_notification`."""
        if self._broken is not None:
            return
        self.check(mem)
        if not self.event_idx:
            mem.store(self._used_ring + RING_FLAGS, 2, USED_NO_NOTIFY)

    def state(self) -> QueueState:
        """See `Queue.state`."""
        return QueueState(
            max_size=self._max_size,
            size=self._size,
            ready=self.ready,
            desc_table=self._desc_table,
            avail_ring=self._avail_ring,
            used_ring=self._used_ring,
            event_idx=self.event_idx,
            indirect=self.indirect,
            next_avail=self._next_avail,
            next_used=self._next_used,
            num_added=self._num_added,
            broken=None if self._broken is None else self._broken.reason,
        )

    @classmethod
    def from_state(cls, state: QueueState, mem: GuestMemory | None = None) -> Self:
        """See `Queue.from_state`."""
        queue = cls(state.max_size)
        queue.size, queue.ready = state.size, state.ready
        queue.desc_table, queue.avail_ring, queue.used_ring = (
            state.desc_table,
            state.avail_ring,
            state.used_ring,
        )
        queue.event_idx, queue.indirect = state.event_idx, state.indirect
        queue._next_avail, queue._next_used = state.next_avail, state.next_used
        queue._num_added = state.num_added
        queue._broken = None if state.broken is None else DriverError(state.broken)
        if mem is not None and state.ready:
            queue.check(mem)
        return queue
