"""Rounds over the rings of a network device, in step with what its back end gives and takes."""

from collections.abc import Callable
from typing import Protocol

from virtio_queue import ChainBatch, VirtQueue
from vmm_memory import GuestMemory

from virtio_devices._net_port import Port, Stop, Turn
from virtio_devices._server import Outcome

__all__ = ("ReceiveWork", "TransmitWork", "Watch")

TRANSMIT_CHAINS = 64
# Two segments of 64 KiB in the buffers of a Linux driver; not more than a wake-up for one packet may walk.
RECEIVE_CHAINS = 96


class Watch(Protocol):
    """How a round asks to be woken when the back end is ready, or not to be."""

    def __call__(self, wanted: bool, /) -> None:
        """Watch from now on, or do not."""
        ...


def _finish(queue: VirtQueue, memory: GuestMemory, batch: ChainBatch, turn: Turn) -> bool:
    """Publish what is done, give the rest back, blame the driver; returns whether to interrupt it."""
    rest = len(batch) - turn.used
    batch.truncate(turn.used)
    notify = bool(turn.used) and queue.complete_batch(memory, batch)
    if rest:
        queue.undo_pop(rest)
    if turn.broken is not None:
        raise turn.broken
    return notify


class TransmitWork:
    """Frames of the guest: a batch a round; when the back end takes nothing, the chains wait in the ring."""

    def __init__(self, port: Port, batch: ChainBatch, watch: Watch, on_error: Callable[[int], None]) -> None:
        self._port = port
        self._batch = batch
        self._watch = watch
        self._on_error = on_error

    def run(self, queue: VirtQueue, memory: GuestMemory) -> Outcome:
        """Send one batch."""
        count = queue.pop_batch(memory, self._batch)
        if count == 0:
            return Outcome.EMPTY
        turn = self._port.run(memory, self._batch)
        if error := self._port.take_error():
            self._on_error(error)
        outcome = Outcome.NOTIFY if _finish(queue, memory, self._batch, turn) else Outcome.EMPTY
        if turn.stop is Stop.BLOCKED:
            self._watch(True)
            return outcome | Outcome.BLOCKED
        full = count == self._batch.max_chains or turn.used < count
        return outcome | Outcome.FULL if full else outcome


class ReceiveWork:
    """Frames for the guest.

    While there are buffers, the back end is watched and the driver need not kick; while there are none, the
    other way round. A frame that needs more buffers than there are waits for them; one that needs more than
    the driver can ever give is dropped.
    """

    def __init__(
        self,
        port: Port,
        batches: tuple[ChainBatch, ChainBatch],
        watch: Watch,
        on_closed: Callable[[int], None],
    ) -> None:
        """`batches`: the usual one, and one for a whole ring."""
        self._port = port
        self._usual, self._whole = batches
        self._watch = watch
        self._on_closed = on_closed
        self._closed = False
        self._had = 0  # chains at the last try to place the frame that waits

    def run(self, queue: VirtQueue, memory: GuestMemory) -> Outcome:
        """Receive until the buffers of one batch are used up, or nothing comes any more."""
        if self._closed:
            return Outcome.BLOCKED
        batch = self._whole if self._port.pending else self._usual
        count = queue.pop_batch(memory, batch)
        if count == 0:
            self._watch(False)
            return Outcome.EMPTY
        turn = self._port.run(memory, batch)
        waits = self._port.pending and turn.broken is None
        more = waits and count < batch.max_chains and queue.enable_notification(memory)
        outcome = Outcome.NOTIFY if _finish(queue, memory, batch, turn) else Outcome.EMPTY
        if waits:
            return outcome | self._wait_for_buffers(count, turn, batch is self._whole, more, queue.size)
        self._had = 0
        return outcome | self._after(turn, full=count == batch.max_chains)

    def _after(self, turn: Turn, *, full: bool) -> Outcome:
        """What comes next when no frame waits; `full`: there may be more chains than were taken."""
        if turn.stop is Stop.MORE or (turn.stop is Stop.STARVED and full):
            return Outcome.FULL
        self._watch(turn.stop is Stop.BLOCKED)
        if turn.stop is Stop.STARVED:
            return Outcome.EMPTY  # the next kick says that there are buffers
        if turn.stop is Stop.CLOSED:
            self._closed = True
            self._on_closed(turn.error)
        return Outcome.BLOCKED

    def _wait_for_buffers(self, count: int, turn: Turn, whole: bool, more: bool, size: int) -> Outcome:
        """A frame is held: look again, wait for a kick, or give it up.

        Notifications were switched on while every chain was taken, so that the driver announces the next one.
        """
        left = count - turn.used
        if turn.used or not whole:
            self._had = 0
            if more or not whole:
                return Outcome.FULL
        elif left >= size or (more and left <= self._had):
            self._port.drop_pending()  # the whole ring, or all that can be taken of it, is not enough
            self._had = 0
            return Outcome.FULL
        self._had = left
        if more:
            return Outcome.FULL
        self._watch(False)
        return Outcome.BLOCKED
