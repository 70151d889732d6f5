"""A driver and one device, operated step by step; what the device does wrong is noticed."""

from collections.abc import Callable, Sequence
from typing import cast

from vmm_memory import GuestMemory

from virtio_queue._errors import DriverError
from virtio_queue._protocol import VirtQueue
from virtio_queue._queue import Queue
from virtio_queue.testing._driver import Driver
from virtio_queue.testing._hostile import HostileChain
from virtio_queue.testing._record import Trial, step
from virtio_queue.testing._rings import RingLayout
from virtio_queue.testing._trial_memory import ARENA, LARGEST, RINGS, TABLE, WATCHED, trial_memory
from virtio_queue.testing._twin import TwinQueue
from virtio_queue.testing._watched import Held, WatchedQueue

Device = Callable[[VirtQueue, GuestMemory], bool | None]
"""Works until nothing is available; returns whether it interrupts the driver (None: cannot tell)."""
Answer = Callable[[bytes, int], bytes]
"""From the bytes of a request and its room to what the device must have written."""


class DeviceTrial(Trial):
    """A device on a queue in small guest memory, and a driver that may be hostile; steps check the device.

    The device is called as `device(queue, memory)` when the driver kicks; it works until nothing is
    available, and returns whether it interrupts the driver (None: cannot tell). DriverError from it means
    that it asks for a reset; it is left alone until `reset`. Checked in each call: it comes to an end; it
    writes nothing but its part of the ring and the writable buffers of its chains; it completes what it
    has, once, with no more bytes than there was room; it forgets no interrupt; with an honest driver it
    leaves nothing lying, raises nothing, and listens for the next kick. With a hostile one it raises
    DriverError or nothing.

    Args:
        make_device: Makes a fresh device; called once, and again by `reset`.
        size: Entries of the queue, 1 to 16.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated: the device completes requests as they came.
        packed: Format of the ring.
        keeps: The device may keep chains for later, as one that receives does.
        answer: From the bytes of a request and its room to what the device must have written; None: anything.

    Attributes:
        honest: No hostile step was taken since the last reset.
        wants_reset: The device raised DriverError.

    Raises:
        AssertionError: From a step: the device broke a rule.
        Exception: From a step: what the device raised.
    """

    def __init__(
        self,
        make_device: Callable[[], Device],
        *,
        size: int = 4,
        event_idx: bool = False,
        indirect: bool = True,
        in_order: bool = False,
        packed: bool = False,
        keeps: bool = False,
        answer: Answer | None = None,
    ) -> None:
        features = {"event_idx": event_idx, "indirect": indirect, "in_order": in_order}
        options: dict[str, object] = {"size": size, **features, "packed": packed, "keeps": keeps}
        options |= {} if answer is None else {"answer": answer}
        super().__init__(make_device, options)
        self._make_device, self._keeps, self._answer = make_device, keeps, answer
        self._features = features
        self._layout = RingLayout.at(RINGS, size, packed=packed)
        self._memory = trial_memory(huge=False)
        self._queue = Queue(LARGEST)
        self._begin()

    def _begin(self) -> None:
        self.honest, self.wants_reset = True, False
        self._sent: dict[int, tuple[bytes, int]] = {}
        self._chains: list[Held] = []
        self._device = self._make_device()
        self._queue.reset()
        self._layout.configure(self._queue, **self._features)
        self._driver = Driver(self._memory, self._layout, **self._features, arena=ARENA)
        self._driver.enable_interrupts()

    @step
    def request(
        self, readable: Sequence[bytes] = (), writable: Sequence[int] = (), *, indirect: bool = False
    ) -> None:
        """The driver makes a request available, if it has room, and does not kick.

        Args:
            readable: Content of the buffers to read: one stream of bytes, cut anywhere.
            writable: Lengths of the buffers to write; there is at least one buffer of either kind.
            indirect: In an indirect table, if that was negotiated.
        """
        try:
            indirect = indirect and self._features["indirect"]
            head = self._driver.request(readable, writable, indirect=indirect)
        except (MemoryError, ValueError):
            return
        self._sent[head] = b"".join(readable), sum(writable)

    @step
    def kick(self) -> None:
        """The driver kicks if the device asked for it."""
        if self._driver.kick_needed():
            self._serve()
        elif self.honest and not self.wants_reset:
            assert not self._waiting(), "the device wants no kick, and never sees the chain that waits"

    @step
    def wake(self) -> None:
        """The device is called without cause."""
        self._serve()

    @step
    def take_used(self) -> None:
        """The driver takes back what the device completed, and looks at the answers."""
        if not self.honest:
            return
        for done in self._driver.completed():
            sent, room = self._sent.pop(done.head)
            if self._answer is not None:
                wanted, got = self._answer(sent, room), b"".join(done.data)
                assert got == wanted, f"request {sent!r} with room for {room}: {got!r}, not {wanted!r}"

    @step
    def set_interrupts(self, *, enabled: bool) -> None:
        """The driver says whether it wants to hear of completed requests."""
        (self._driver.enable_interrupts if enabled else self._driver.disable_interrupts)()

    @step
    def add_hostile(self, chain: HostileChain) -> None:
        """The driver makes any descriptors available and kicks."""
        self.honest = False
        chain.offer(self._driver, TABLE)
        self._serve()

    @step
    def reset(self) -> None:
        """The driver resets the device; both start again from nothing."""
        self._begin()

    def _waiting(self) -> bool:
        """Whether a chain can be popped; asked of a twin, so that the queue does not notice."""
        return TwinQueue.from_state(self._queue.state()).pop(self._memory) is not None

    def _serve(self) -> None:
        if self.wants_reset:
            return
        before = [self._memory.read(*place) for place in WATCHED]
        watched = WatchedQueue(self._queue, self._chains)
        interrupted: bool | None = None
        try:
            interrupted = self._device(cast(VirtQueue, watched), self._memory)
        except DriverError as error:
            if self.honest:
                raise AssertionError(f"the device blames an honest driver: {error}") from error
            self.wants_reset = True
        assert watched.fault is None, f"the device {watched.fault}"
        self._check_memory(before, watched.seen)
        self._chains = watched.chains
        if not self.wants_reset:
            self._check_duties(watched, interrupted)

    def _check_memory(self, before: list[bytes], chains: list[Held]) -> None:
        layout = self._layout
        places = [(part.addr, part.len) for _head, segments in chains for part in segments]
        places += [(layout.used_ring, layout.end - layout.used_ring)]
        if layout.packed:
            places += [(layout.desc_table, layout.avail_ring - layout.desc_table)]
        for (base, size), old in zip(WATCHED, before, strict=True):
            new, expected = self._memory.read(base, size), bytearray(old)
            for addr, length in places:
                start, end = max(addr - base, 0), min(addr + length - base, size)
                if start < end:
                    expected[start:end] = new[start:end]
            if new != expected:
                offset = next(i for i, (a, b) in enumerate(zip(new, expected, strict=True)) if a != b)
                raise AssertionError(f"the device wrote to {base + offset:#x}, which is not its to write")

    def _check_duties(self, watched: WatchedQueue, interrupted: bool | None) -> None:
        if interrupted is not None:
            assert not watched.undecided, (
                f"the device did not ask whether to interrupt after {watched.undecided} chains"
            )
            assert interrupted or not watched.interrupt, "the device forgot to interrupt the driver"
            assert watched.interrupt or not interrupted, (
                "the device interrupts a driver that does not want it"
            )
        if self.honest:
            assert not self._waiting(), "the device leaves chains lying"
            kept = self._queue.in_flight
            assert self._keeps or not kept, f"the device does not give {kept} chains back"
