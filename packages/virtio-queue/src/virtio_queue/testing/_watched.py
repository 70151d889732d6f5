"""A queue that is watched while a device works on it."""

from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._errors import DriverError
from virtio_queue._protocol import VirtQueue

_P = ParamSpec("_P")
_R = TypeVar("_R")

_MOST_CALLS = 1000  # far more than a queue of 16 entries takes
_OWN = ("chains", "seen", "fault", "interrupt", "undecided")

Held = tuple[int, tuple[Segment, ...]]  # head, and the buffers that the device may write


class WatchedQueue:
    """Stands for a queue: passes everything on, and notes what the device owes.

    Args:
        queue: The queue.
        chains: Those that the device has from before.

    Attributes:
        chains: What the device has, in the order of its pops.
        seen: All that it has or had since.
        fault: The first rule that the device broke.
        interrupt: The queue decided to interrupt the driver.
        undecided: Chains completed since the last decision.
    """

    def __init__(self, queue: VirtQueue, chains: Sequence[Held]) -> None:
        self._queue = queue
        self._calls_left = _MOST_CALLS
        self.chains, self.seen = list(chains), list(chains)
        self.fault: str | None = None
        self.interrupt = False
        self.undecided = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._queue, name)

    def __setattr__(self, name: str, value: object) -> None:
        own = name.startswith("_") or name in _OWN
        object.__setattr__(self if own else self._queue, name, value)

    def _call(self, operation: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self._calls_left == 0:
            self._blame("does not come to an end: it calls its queue again and again")
        self._calls_left -= 1
        return operation(*args, **kwargs)

    def _blame(self, fault: str) -> None:
        """Kept, because the device may catch what is raised in its midst."""
        self.fault = self.fault or fault
        raise AssertionError(f"the device {self.fault}")

    def _take(self, head: int, segments: Iterable[Segment]) -> None:
        held = head, tuple(segment for segment in segments if segment.writable)
        self.chains.append(held)
        self.seen.append(held)

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """See `Queue.pop`."""
        try:
            chain = self._call(self._queue.pop, mem)
        except DriverError as error:
            if error.head is not None and self._queue.in_flight > len(self.chains):
                self._take(error.head, ())
            raise
        if chain is not None:
            self._take(chain.head, chain.segments)
        return chain

    def pop_batch(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """See `Queue.pop_batch`."""
        count = self._call(self._queue.pop_batch, mem, batch)
        for index, record in enumerate(batch.records()):
            self._take(record[2], () if record[4] else batch.segments(index))
        return count

    def undo_pop(self, count: int = 1) -> None:
        """See `Queue.undo_pop`."""
        self._call(self._queue.undo_pop, count)
        del self.chains[-count:]

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """See `Queue.add_used`."""
        self._call(self._queue.add_used, mem, *self._completed(head, written))

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """See `Queue.complete_batch`."""
        for record in batch.records():
            self._completed(record[2], record[3])
        return self._decided(interrupt=self._call(self._queue.complete_batch, mem, batch))

    def needs_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.needs_notification`."""
        return self._decided(interrupt=self._call(self._queue.needs_notification, mem))

    def enable_notification(self, mem: GuestMemory) -> bool:
        """See `Queue.enable_notification`."""
        return self._call(self._queue.enable_notification, mem)

    def disable_notification(self, mem: GuestMemory) -> None:
        """See `Queue.disable_notification`."""
        self._call(self._queue.disable_notification, mem)

    def _completed(self, head: int, written: int) -> tuple[int, int]:
        # A hostile driver may have the same head in a split ring twice.
        rooms = {
            sum(segment.len for segment in segments): place
            for place, (held, segments) in enumerate(self.chains)
            if held == head
        }
        if not rooms:
            self._blame(f"completes chain {head}, which it does not have")
        room = max(rooms)
        if written > room:
            self._blame(f"says that it wrote {written} bytes into chain {head}, which has room for {room}")
        del self.chains[rooms[room]]
        self.undecided += 1
        return head, written

    def _decided(self, *, interrupt: bool) -> bool:
        self.interrupt = self.interrupt or interrupt
        self.undecided = 0
        return interrupt
