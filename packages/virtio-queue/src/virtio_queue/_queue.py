"""The device side of a split virtqueue, on the C core."""

import errno
from typing import Final, Self

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._errors import DriverError, Reason
from virtio_queue._ffi import driver_error, fail, lib, new_virtq
from virtio_queue._layout import U16, U64, check_max_size, check_register
from virtio_queue._protocol import VirtQueue
from virtio_queue._state import QueueState

_U32 = 0xFFFF_FFFF
# Bound once: an attribute lookup on lib costs a good part of a call.
_pop_batch: Final = lib.vq_pop_batch
_complete_batch: Final = lib.vq_complete_batch


class Queue:
    """Device side of a split virtqueue with indirect descriptors and event index (VIRTIO 1.2, 2.7).

    Guest memory is hostile. What breaks one chain (a loop, a buffer outside memory, …) is reported once: the
    chain is taken from the ring, and the device either completes it with 0 bytes or asks for a reset. What
    breaks the ring (an available index that ran ahead, a head outside the table) breaks the queue: each later
    pop raises the same error until `reset`, and `enable_notification` says that there is nothing to do: no
    loop can spin. Every chain that was popped, broken ones too, has to be completed or given back: as many
    as the queue has entries can be in flight, and a driver that announces more has broken the ring.

    One thread at a time. Operations release the GIL.

    Args:
        max_size: Most entries a driver may choose, a power of two from 1 to 32768; `size` starts there.

    Raises:
        ValueError: `max_size` is no queue size.
    """

    __slots__ = ("_single", "_vq")

    def __init__(self, max_size: int) -> None:
        self._vq = new_virtq(check_max_size(max_size))
        self._single: ChainBatch | None = None

    def __repr__(self) -> str:
        return f"Queue({self.state()})"

    @property
    def max_size(self) -> int:
        """Most entries a driver may choose."""
        return self._vq.max_size

    @property
    def size(self) -> int:
        """Entries; settable, 0 to 65535. Usable is a power of two up to `max_size`."""
        return self._vq.size

    @size.setter
    def size(self, value: int) -> None:
        self._vq.size = check_register("size", value, U16)

    @property
    def desc_table(self) -> int:
        """Guest address of the descriptor table; settable, 64 bits. Usable is a multiple of 16."""
        return self._vq.desc

    @desc_table.setter
    def desc_table(self, value: int) -> None:
        self._vq.desc = check_register("desc_table", value, U64)

    @property
    def avail_ring(self) -> int:
        """Guest address of the available ring; settable, 64 bits. Usable is a multiple of 2."""
        return self._vq.avail

    @avail_ring.setter
    def avail_ring(self, value: int) -> None:
        self._vq.avail = check_register("avail_ring", value, U64)

    @property
    def used_ring(self) -> int:
        """Guest address of the used ring; settable, 64 bits. Usable is a multiple of 4."""
        return self._vq.used

    @used_ring.setter
    def used_ring(self, value: int) -> None:
        self._vq.used = check_register("used_ring", value, U64)

    @property
    def ready(self) -> bool:
        """Whether the driver has enabled the queue; settable."""
        return bool(self._vq.flags & lib.VIRTQ_READY)

    @ready.setter
    def ready(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_READY, value)

    @property
    def event_idx(self) -> bool:
        """VIRTIO_F_EVENT_IDX was negotiated; settable."""
        return bool(self._vq.flags & lib.VIRTQ_EVENT_IDX)

    @event_idx.setter
    def event_idx(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_EVENT_IDX, value)

    @property
    def indirect(self) -> bool:
        """VIRTIO_F_INDIRECT_DESC was negotiated; settable."""
        return bool(self._vq.flags & lib.VIRTQ_INDIRECT)

    @indirect.setter
    def indirect(self, value: bool) -> None:
        self._set_flag(lib.VIRTQ_INDIRECT, value)

    @property
    def next_avail(self) -> int:
        """Free-running 16-bit index of the next chain to pop."""
        return self._vq.next_avail

    @property
    def next_used(self) -> int:
        """Free-running 16-bit index of the next used element."""
        return self._vq.next_used

    @property
    def in_flight(self) -> int:
        """Chains popped and not completed, 0 to `size`."""
        return (self._vq.next_avail - self._vq.next_used) & U16

    @property
    def broken(self) -> DriverError | None:
        """Why nothing is popped any more, None for a sound queue."""
        return driver_error(self._vq.broken) if self._vq.broken.error else None

    def _set_flag(self, flag: int, value: bool) -> None:
        self._vq.flags = self._vq.flags | flag if value else self._vq.flags & ~flag

    def is_valid(self, mem: GuestMemory) -> bool:
        """Whether the queue is ready, its size legal, its rings aligned and in (writable) memory.

        Args:
            mem: The memory the ring addresses mean.
        """
        try:
            self.check(mem)
        except DriverError:
            return False
        return True

    def check(self, mem: GuestMemory) -> None:
        """As `is_valid`, and says what is wrong.

        Raises:
            DriverError: NOT_READY, RING_SIZE, RING_ALIGNMENT or RING_ADDRESS.
        """
        view = mem.access_map()
        rc = lib.vq_check(view.address, self._vq)
        if rc < 0:
            fail(rc, self._vq, "")

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """Take the next chain.

        Returns:
            The chain, or None when the driver has made no further one available.

        Raises:
            DriverError: `head` is set: this chain is broken, was taken and can be completed with 0 bytes.
                `head` None, or reason HEAD: the queue is broken or unusable and nothing was taken.
        """
        single = self._single
        if single is None or single.max_segments < self._vq.size:
            single = self._single = ChainBatch(1, max(self._vq.size, 1))
        if self.pop_batch(mem, single) == 0:
            return None
        if single.records()[0][4]:
            raise driver_error(self._vq.fault)
        return single.chain(0, mem)

    def pop_batch(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """Take as many chains as there are and fit, in one crossing into C.

        A batch whose buffers have come to 256 MiB is full as well: what works on it cannot be stopped.

        Args:
            mem: The memory the chains lie in.
            batch: Emptied first. Broken chains are in it with their error (`batch.errors()`).

        Returns:
            How many chains the batch now holds. Chains before a fault that broke the queue are delivered;
            the next call raises.

        Raises:
            DriverError: The queue is broken or unusable; the batch is empty.
            ValueError: The batch holds fewer segments than the queue has entries, so that a legal chain might
                never fit; nothing was taken.
        """
        view = mem.access_map()
        rc = _pop_batch(view.address, self._vq, batch.address)
        if rc < 0:
            fail(rc, self._vq, f"batch has room for {batch.max_segments} segments, queue size is {self.size}")
        return rc

    def undo_pop(self, count: int = 1) -> None:
        """Give the last popped chains back, so that the next pop finds them again.

        Args:
            count: Chains, 1 to `in_flight`; none popped after them may have been completed.

        Raises:
            ValueError: So many are not in flight; nothing is changed.
        """
        if not 1 <= count <= self.in_flight:
            raise ValueError(f"cannot give {count} chains back, {self.in_flight} are in flight")
        self._vq.next_avail = (self._vq.next_avail - count) & U16

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """Complete one chain: write a used element and publish it.

        Args:
            mem: The memory of the ring.
            head: `DescriptorChain.head`, below `size`.
            written: Bytes written into the writable segments, 0 to 2^32 - 1.

        Raises:
            DriverError: The queue is unusable; nothing is changed.
            ValueError: An argument is out of range or nothing is in flight; nothing is changed.
        """
        check_register("head", head, U16)
        check_register("written", written, _U32)
        view = mem.access_map()
        rc = lib.vq_add_used(view.address, self._vq, head, written)
        if rc < 0:
            fail(rc, self._vq, f"chain {head} of queue size {self.size}, {self.in_flight} chains in flight")

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """Complete every chain of the batch, in its order, with one index store, in one crossing into C.

        Args:
            mem: The memory of the ring.
            batch: Chains with `written` set; it is left as it is.

        Returns:
            True when the driver has to be interrupted now (as `needs_notification`).

        Raises:
            DriverError: The queue is unusable; nothing is published.
            ValueError: A head is no index of the queue, `written` exceeds the writable bytes of its chain, or
                more chains than are in flight; nothing is published.
        """
        view = mem.access_map()
        rc = _complete_batch(view.address, self._vq, batch.address)
        if rc == -errno.EINVAL:
            raise ValueError(completion_error(self, batch))
        if rc < 0:
            fail(rc, self._vq, "")
        return rc == 1

    def needs_notification(self, mem: GuestMemory) -> bool:
        """Decide whether the driver must be interrupted for what was completed since the last decision.

        False when nothing was. Without event index the driver's VIRTQ_AVAIL_F_NO_INTERRUPT decides (2.7.7).

        Raises:
            DriverError: The queue is unusable.
        """
        view = mem.access_map()
        rc = lib.vq_needs_notification(view.address, self._vq)
        if rc < 0:
            fail(rc, self._vq, "")
        return rc == 1

    def enable_notification(self, mem: GuestMemory) -> bool:
        """Ask the driver to announce new chains.

        Returns:
            True when chains came that the driver may not announce; then pop on. False on a broken queue.

        Raises:
            DriverError: The queue is unusable.
        """
        view = mem.access_map()
        rc = lib.vq_enable_notification(view.address, self._vq)
        if rc < 0:
            fail(rc, self._vq, "")
        return rc == 1

    def disable_notification(self, mem: GuestMemory) -> None:
        """Ask the driver not to announce new chains; a hint that it may ignore.

        Raises:
            DriverError: The queue is unusable.
        """
        view = mem.access_map()
        rc = lib.vq_disable_notification(view.address, self._vq)
        if rc < 0:
            fail(rc, self._vq, "")

    def reset(self) -> None:
        """Back to the state after construction: not ready, `size` at its maximum, nothing negotiated."""
        self._vq = new_virtq(self._vq.max_size)

    def state(self) -> QueueState:
        """Everything the queue knows; take it while no thread works on the queue."""
        vq = self._vq
        return QueueState(
            max_size=vq.max_size,
            size=vq.size,
            ready=self.ready,
            desc_table=vq.desc,
            avail_ring=vq.avail,
            used_ring=vq.used,
            event_idx=self.event_idx,
            indirect=self.indirect,
            next_avail=vq.next_avail,
            next_used=vq.next_used,
            num_added=vq.num_added,
            broken=Reason(-vq.broken.error) if vq.broken.error else None,
        )

    @classmethod
    def from_state(cls, state: QueueState, mem: GuestMemory | None = None) -> Self:
        """A queue that goes on where another one stopped.

        Args:
            state: From `state`, perhaps of another process; its fields were checked when it was made.
            mem: When given, a ready queue's rings must lie in it; otherwise the first operation finds out.

        Raises:
            DriverError: The rings are not in `mem`.
        """
        queue = cls(state.max_size)
        vq = queue._vq
        vq.size, vq.desc, vq.avail, vq.used = state.size, state.desc_table, state.avail_ring, state.used_ring
        queue.ready, queue.event_idx, queue.indirect = state.ready, state.event_idx, state.indirect
        vq.next_avail, vq.next_used, vq.num_added = state.next_avail, state.next_used, state.num_added
        if state.broken is not None:
            vq.broken.error, vq.broken.head = -state.broken, lib.VIRTQ_NO_HEAD
        if mem is not None and state.ready:
            queue.check(mem)
        return queue


def completion_error(queue: VirtQueue, batch: ChainBatch) -> str:
    """Which rule of `complete_batch` the caller broke."""
    in_flight = (queue.next_avail - queue.next_used) & U16
    for _first, _count, head, written, _error, _readable, writable in batch.records():
        if head >= queue.size:
            return f"chain {head} is no index of a queue of {queue.size}"
        if written > writable:
            return f"chain {head}: {written} bytes written, {writable} writable"
    return f"batch completes {len(batch)} chains, {in_flight} are in flight"
