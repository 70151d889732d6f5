"""The device side of a virtqueue, on the C core."""

import errno
from collections.abc import Callable
from typing import Final, Self

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._completion import refusal
from virtio_queue._errors import DriverError
from virtio_queue._ffi import driver_error, fail, lib, new_virtq
from virtio_queue._layout import U16, check_max_size, check_register
from virtio_queue._place import RingPlace, place_of, reset_ring, state_at
from virtio_queue._registers import QueueRegisters, restore, save
from virtio_queue._state import QueueState
from virtio_queue._translated import again, pop_again

_U32 = 0xFFFF_FFFF
# Bound once: an attribute lookup on lib costs a good part of a call.
_pop_batch: Final = lib.vq_pop_batch
_complete_batch: Final = lib.vq_complete_batch


class Queue(QueueRegisters):
    """Device side of a virtqueue, split or packed, with indirect descriptors and event index.

    Guest memory is hostile. What breaks one chain (a loop, a buffer outside memory, …) is reported once: the
    chain is taken from the ring, and the device either completes it with 0 bytes or asks for a reset. What
    breaks the ring (an available index that ran ahead, a head outside the table; packed: a list without an
    end, a buffer id that is in flight) breaks the queue: each later pop raises the same error until `reset`,
    and `enable_notification` says that there is nothing to do: no loop can spin. Every chain that was popped,
    broken ones too, has to be completed or given back: as many as the queue has entries can be in flight, and
    a driver that announces more has broken the ring.

    Which format it is, `packed` says; everything else is the same for both (VIRTIO 1.2, 2.7 and 2.8).

    One thread at a time. Operations release the GIL.

    Args:
        max_size: Most entries a driver may choose, 1 to 32768; `size` starts there. The size of a split ring
            must be a power of two, which is judged when it is used.

    Raises:
        ValueError: `max_size` is no queue size.
    """

    __slots__ = ("_single",)

    def __init__(self, max_size: int) -> None:
        self._vq = new_virtq(check_max_size(max_size))
        self._single: ChainBatch | None = None

    def __repr__(self) -> str:
        return f"Queue({self.state()})"

    def _call(
        self, call: Callable[..., int], mem: GuestMemory, *rest: object, caller: Callable[[], str] = str
    ) -> int:
        view = mem.access_map()
        rc = call(view.map, self._vq, *rest)
        if rc < 0 and view.translated:
            rc = again(rc, call, mem, self._vq, *rest)
        return rc if rc >= 0 else fail(rc, self._vq, caller())

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
        self._call(lib.vq_check, mem)

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """Take the next chain.

        Returns:
            The chain, or None when the driver has made no further one available.

        Raises:
            DriverError: `head` is set: this chain is broken, was taken and can be completed with 0 bytes.
                `broken` set, or `head` None: the queue is broken or unusable and nothing was taken.
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
        rc = _pop_batch(view.map, self._vq, batch.raw)
        if view.translated:
            rc = pop_again(rc, _pop_batch, mem, self, batch)
        if rc < 0:
            fail(rc, self._vq, f"batch has room for {batch.max_segments} segments, queue size is {self.size}")
        return rc

    def undo_pop(self, count: int = 1) -> None:
        """Give the last popped chains back, so that the next pop finds them again.

        Args:
            count: Chains, 1 to `in_flight`; none of them or popped after them may have been completed.

        Raises:
            ValueError: So many are not in flight, or (packed, where it is known) one of the last `count` was
                completed; nothing is changed.
        """
        if not 1 <= count <= self.in_flight:
            raise ValueError(f"cannot give {count} chains back, {self.in_flight} are in flight")
        if lib.virtq_undo_pop(self._vq, count) < 0:
            raise ValueError(f"cannot give {count} chains back, of the last {count} some were completed")

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """Complete one chain: write a used element and publish it.

        Args:
            mem: The memory of the ring.
            head: `DescriptorChain.head`; below `size`, or (packed) the id of a chain in flight.
            written: Bytes written into the writable segments, 0 to 2^32 - 1.

        Raises:
            DriverError: The queue is unusable; nothing is changed.
            ValueError: An argument is out of range or nothing is in flight; nothing is changed.
        """
        check_register("head", head, U16)
        check_register("written", written, _U32)
        self._call(lib.vq_add_used, mem, head, written, caller=lambda: self._refusal([head]))

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """Complete every chain of the batch, in its order, with one index store, in one crossing into C.

        Args:
            mem: The memory of the ring.
            batch: Chains with `written` set; it is left as it is.

        Returns:
            True when the driver has to be interrupted now (as `needs_notification`).

        Raises:
            DriverError: The queue is unusable; nothing is published.
            ValueError: A head is no index of the queue (packed: not in flight, or twice in the batch),
                `written` exceeds the writable bytes of its chain, or more chains than are in flight; nothing
                is published.
        """
        view = mem.access_map()
        rc = _complete_batch(view.map, self._vq, batch.raw)
        if rc < 0 and view.translated:
            rc = again(rc, _complete_batch, mem, self._vq, batch.raw)
        if rc == -errno.EINVAL:
            raise ValueError(self._completion_error(batch))
        if rc < 0:
            fail(rc, self._vq, "")
        return rc == 1

    def _completion_error(self, batch: ChainBatch) -> str:
        for _first, _count, head, written, _error, _readable, writable in batch.records():
            if written > writable:
                return f"chain {head}: {written} bytes written, {writable} writable"
        return self._refusal([record[2] for record in batch.records()])

    def _refusal(self, heads: list[int]) -> str:
        held = self._vq.held
        known = (lambda head: bool(held[head].slots)) if self.packed else None
        oldest = [chain.head for chain in self.state().held] if self.in_order else None
        return str(refusal(heads, self.size, self.in_flight, known, oldest))

    def needs_notification(self, mem: GuestMemory) -> bool:
        """Decide whether the driver must be interrupted for what was completed since the last decision.

        False when nothing was. Without event index the driver's VIRTQ_AVAIL_F_NO_INTERRUPT decides (2.7.7);
        in a packed ring its event suppression structure (2.8.10).

        Raises:
            DriverError: The queue is unusable.
        """
        return self._call(lib.vq_needs_notification, mem) == 1

    def enable_notification(self, mem: GuestMemory) -> bool:
        """Ask the driver to announce new chains.

        Returns:
            True when chains came that the driver may not announce; then pop on. False on a broken queue.

        Raises:
            DriverError: The queue is unusable.
        """
        return self._call(lib.vq_enable_notification, mem) == 1

    def disable_notification(self, mem: GuestMemory) -> None:
        """Ask the driver not to announce new chains; a hint that it may ignore.

        Raises:
            DriverError: The queue is unusable.
        """
        self._call(lib.vq_disable_notification, mem)

    def reset(self) -> None:
        """Back to the state after construction: not ready, `size` at its maximum, nothing negotiated."""
        self._vq = new_virtq(self._vq.max_size)

    def reset_ring(self) -> None:
        """Back to a fresh ring with the same features, as VIRTIO_F_RING_RESET wants it (VIRTIO 1.2, 2.6.1).

        Not ready, `size` at its maximum, addresses and positions at their start; chains in flight are lost.
        """
        self._vq = type(self).from_state(reset_ring(self.state()))._vq

    def detach(self) -> RingPlace:
        """Hand the ring out for another backend: it is no longer ready here.

        Decide about the last interrupt (`needs_notification`) before.

        Raises:
            ValueError: Chains are in flight; nothing is changed. Complete them, or give them back.
        """
        if self.in_flight:
            raise ValueError(f"cannot detach the ring with {self.in_flight} chains in flight")
        self.ready = False
        return place_of(self.state())

    def attach(self, place: RingPlace, mem: GuestMemory | None = None) -> None:
        """Go on with a ring where another backend stopped; it is ready then.

        The first decision about an interrupt is for one, if the driver wants any.

        Args:
            place: From `detach`, perhaps `RingPlace.moved`.
            mem: When given, the rings must lie in it; otherwise the first operation finds out.

        Raises:
            InvalidStateError: A field of `place` is out of range; nothing is changed.
            DriverError: The rings are not in `mem`; nothing is changed.
            ValueError: Chains are in flight; nothing is changed.
        """
        if self.in_flight:
            raise ValueError(f"cannot attach a ring with {self.in_flight} chains in flight")
        self._vq = type(self).from_state(state_at(self.state(), place), mem)._vq

    def state(self) -> QueueState:
        """Everything the queue knows; take it while no thread works on the queue."""
        return save(self)

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
        restore(queue, state)
        if mem is not None and state.ready:
            queue.check(mem)
        return queue
