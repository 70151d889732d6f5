"""Serving one queue: kick, pop, process, complete, interrupt, and never lose a kick.

The order that keeps kicks from getting lost: read the eventfd first, then drain the ring, then switch
notifications on and look once more (VIRTIO 1.2 section 2.7.7.2). A handler never runs after `stop` has
returned.
"""

import enum
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from virtio_queue import ChainBatch, DescriptorChain, DriverError, VirtQueue
from vm_device import EventFd, EventManager
from vmm_memory import GuestAccessError, GuestAddressSpace, GuestMemory

from virtio_devices._errors import RequestError
from virtio_devices._log import LOGGER
from virtio_devices._tally import QueueTally

ChainHandler = Callable[[GuestMemory, DescriptorChain], int]
BatchHandler = Callable[[GuestMemory, ChainBatch], bool]
Gate = Callable[[], bool]

# A driver that refills its ring as fast as we drain it must not keep other queues of a shared loop waiting
# for ever.
MAX_ROUNDS = 16
MAX_CHAINS = 64


class Outcome(enum.Flag):
    """What one round over a ring came to."""

    EMPTY = 0  # everything that was there is answered
    FULL = 1  # stopped at its limit, there may be more
    NOTIFY = 2
    BLOCKED = 4


class QueueWork(Protocol):
    """One bounded round over a ring."""

    def run(self, queue: VirtQueue, memory: GuestMemory) -> Outcome:
        """Answer what is there, up to a limit."""
        ...


class ChainWork:
    """One chain at a time, for handlers written in Python; the gate is asked before each pop."""

    def __init__(self, handler: ChainHandler, gate: Gate | None) -> None:
        self._handler = handler
        self._gate = gate

    def run(self, queue: VirtQueue, memory: GuestMemory) -> Outcome:
        """Answer up to MAX_CHAINS chains."""
        outcome = Outcome.FULL
        answered = 0
        while answered < MAX_CHAINS:
            if self._gate is not None and not self._gate():
                outcome = Outcome.BLOCKED
                break
            chain = queue.pop(memory)
            if chain is None:
                outcome = Outcome.EMPTY
                break
            queue.add_used(memory, chain.head, self._handler(memory, chain))
            answered += 1
        if answered and queue.needs_notification(memory):
            outcome |= Outcome.NOTIFY
        return outcome


class BatchWork:
    """A batch at a time, for data paths in C; used elements are published together."""

    def __init__(self, handler: BatchHandler, batch: ChainBatch, gate: Gate | None) -> None:
        self._handler = handler
        self._batch = batch
        self._gate = gate

    def run(self, queue: VirtQueue, memory: GuestMemory) -> Outcome:
        """Answer one batch."""
        if self._gate is not None and not self._gate():
            return Outcome.BLOCKED
        count = queue.pop_batch(memory, self._batch)
        if count == 0:
            return Outcome.EMPTY
        sound = self._handler(memory, self._batch)
        notify = queue.complete_batch(memory, self._batch)
        if not sound:
            # The sound requests are published by now; the driver has to reset for the broken one.
            raise self._batch.errors()[0]
        # Where segments ran out first, enable_notification finds the rest of the ring.
        outcome = Outcome.FULL if count == self._batch.max_chains else Outcome.EMPTY
        return outcome | Outcome.NOTIFY if notify else outcome


class QueueServer:
    """One queue, its kick and whoever answers it.

    Args:
        index: which queue of the device.
        queue: the ring; used by nobody else between `start` and `stop`.
        kick: eventfd that the driver's notifications arrive on.
        memory: asked for a new snapshot each round.
        work: answers the requests.
        tally: where kicks are counted.
        interrupt: called with the index when the driver wants to know.
        fail: called once with the reason when the ring or a handler broke; the server has stopped serving by
            then.
    """

    def __init__(
        self,
        index: int,
        queue: VirtQueue,
        kick: EventFd,
        memory: GuestAddressSpace,
        work: QueueWork,
        *,
        tally: QueueTally,
        interrupt: Callable[[int], None],
        fail: Callable[[str], None],
    ) -> None:
        self.index = index
        self.queue = queue
        self.kick = kick
        self._memory = memory
        self._tally = tally
        self._work = work
        self._interrupt = interrupt
        self._fail = fail
        self._busy = threading.Lock()
        self._serving = False
        self._broken = False
        self._own_kicks = 0
        self._own_lock = threading.Lock()
        self._loop: EventManager | None = None

    def start(self, loop: EventManager) -> None:
        """Serve on `loop` from now on; looks at the ring at once, for a kick may be long past."""
        if self._loop is not None or self._broken:
            return
        self._loop = loop
        self._serving = True
        loop.add(self.kick.fd, self._on_kick)
        self._kick_myself()

    def stop(self) -> None:
        """Stop serving; returns when no handler runs any more. The ring stays as it is."""
        self._serving = False
        self._leave_loop()
        with self._busy:
            pass  # a round that had begun is over now

    def _leave_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            with suppress(KeyError):  # the loop dropped it, or the other of stop and _break came first
                loop.remove(self.kick.fd)

    def resume(self) -> None:
        """Look at the ring again: the gate may have opened."""
        if self._serving:
            self._kick_myself()

    def _kick_myself(self) -> None:
        with self._own_lock:
            self._own_kicks += 1
        self.kick.write()

    def _take_kicks(self) -> None:
        """Empty the eventfd, and count what is in it that did not come from here."""
        kicks = self.kick.read() or 0
        with self._own_lock:
            own, self._own_kicks = self._own_kicks, 0
        self._tally.kicks += kicks - own  # one that is counted but not yet written makes up for it next time

    def serve_now(self) -> bool:
        """Go round the ring at once, without a kick: its back end has something. On the device thread only.

        Returns:
            False when nothing is served now (paused, reset or broken).
        """
        with self._busy:
            if self._serving:
                self._serve()
            return self._serving

    def _on_kick(self, _events: int) -> None:
        with self._busy:
            if self._serving:
                self._take_kicks()
                self._serve()

    def _serve(self) -> None:
        try:
            self._drain()
        except (DriverError, RequestError, GuestAccessError) as error:
            self._break(str(error))
        except Exception as error:  # noqa: BLE001 - a bug in one device must not take the loop's other devices down
            LOGGER.exception("queue %d: the request handler failed", self.index)
            self._break(f"{type(error).__name__}: {error}")

    def _drain(self) -> None:
        self.queue.disable_notification(self._memory.memory())
        for _ in range(MAX_ROUNDS):
            memory = self._memory.memory()
            outcome = self._work.run(self.queue, memory)
            if outcome & Outcome.NOTIFY:
                self._interrupt(self.index)
            if outcome & Outcome.BLOCKED:
                return
            if not outcome & Outcome.FULL:
                if not self.queue.enable_notification(memory):
                    return
                self._tally.unannounced += 1
                self.queue.disable_notification(memory)
            if not self._serving:
                break  # whoever serves next must find the kick that was read above
        self._kick_myself()

    def _break(self, reason: str) -> None:
        self._broken, self._serving = True, False
        self._leave_loop()
        self._fail(f"queue {self.index}: {reason}")
