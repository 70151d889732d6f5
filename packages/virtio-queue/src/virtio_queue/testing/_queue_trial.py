"""A driver and two queues, an implementation and its oracle, in one object that is operated step by step."""

import errno
import itertools
from collections.abc import Callable, Sequence
from typing import cast

import attrs
from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._errors import DriverError
from virtio_queue._layout import DESC_AVAIL, DESC_USED, U16, WRAP, packed_move
from virtio_queue._place import RingPlace
from virtio_queue._protocol import VirtQueue
from virtio_queue.testing._driver import Driver
from virtio_queue.testing._hostile import HostileChain
from virtio_queue.testing._implementation import MovableRing, QueueClass, ResettableRing
from virtio_queue.testing._lockstep import Lockstep
from virtio_queue.testing._record import Step, Trial, step
from virtio_queue.testing._rings import PackedRings, RingLayout
from virtio_queue.testing._trial_memory import ARENA, DATA, LARGEST, RINGS, TABLE, WATCHED, trial_memory
from virtio_queue.testing._twin import TwinQueue

_U32 = 0xFFFF_FFFF


@attrs.frozen(eq=False)  # a hostile driver can make the same head available twice
class _Taken:
    head: int
    room: int
    error: int = 0


class QueueTrial(Trial):
    """An implementation beside the twin, with the same driver; every step must end alike on both sides.

    Results, errors, saved states, guest memory and dirty pages are compared after each step; as long as the
    driver is honest, nothing may be reported, lost or repeated. Steps that make no sense at the moment do
    nothing, so any sequence of steps is a trial. After a hostile step only agreement counts.

    Of what an implementation need not have, `reset_ring` is tried on a `ResettableRing`, `detach_and_attach`
    on a `MovableRing`; on other queues these steps do nothing.

    Args:
        queue_class: The implementation.
        size: Entries of the queue, 1 to 16; `max_size` is 16.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated.
        start: Entries (packed: descriptors) that were used before, 0 to 65535.
        at: Guest address from which on the rings lie; 0x8000 is the border of two regions.
        packed: Format of the ring; packed ones may have any size.
        make_memory: Makes zeroed guest memory laid out like that of `trial_memory`.

    Attributes:
        honest: No hostile step was taken so far.
        in_order: VIRTIO_F_IN_ORDER was negotiated.

    Raises:
        AssertionError: From a step: the two sides differ, or an honest driver was wronged.
    """

    _simple_steps = (
        Step("pop"),
        Step("pop_batch", {"chains": 4}),
        *(Step("jump", {"distance": distance}) for distance in (1, 2, 4, 5, 8)),
        # As many descriptors as several chains had.
        *(Step("add", {"segments": (Segment(DATA, 1, False),) * count}) for count in range(2, 9)),
    )

    def __init__(
        self,
        queue_class: QueueClass,
        *,
        size: int = 4,
        event_idx: bool = False,
        indirect: bool = True,
        in_order: bool = False,
        start: int = 0,
        at: int = RINGS,
        packed: bool = False,
        make_memory: Callable[[], GuestMemory] = trial_memory,
    ) -> None:
        features = {"event_idx": event_idx, "indirect": indirect, "in_order": in_order}
        options: dict[str, object] = {"size": size, **features, "start": start, "at": at, "packed": packed}
        options |= {} if make_memory is trial_memory else {"make_memory": make_memory}
        super().__init__(queue_class, options)
        self.honest, self.in_order = True, in_order
        self._classes: tuple[QueueClass, QueueClass] = (queue_class, TwinQueue)
        self._layout = RingLayout.at(at, size, packed=packed)
        self._features = features
        memories = (make_memory(), make_memory())
        self._drivers = [self._new_driver(memory, start) for memory in memories]
        first, second = self._new_queue(queue_class, start), self._new_queue(TwinQueue, start)
        self._pair = Lockstep((first, second), memories, WATCHED)
        self._taken: list[_Taken] = []
        self._popped: list[_Taken] = []
        self._pair.compare()

    def _new_queue(self, queue_class: QueueClass, start: int) -> VirtQueue:
        queue = queue_class(LARGEST)
        self._layout.configure(queue, **self._features)
        position = self._layout.position(start)
        return queue_class.from_state(attrs.evolve(queue.state(), next_avail=position, next_used=position))

    def _new_driver(self, memory: GuestMemory, start: int) -> Driver:
        driver = Driver(memory, self._layout, **self._features, arena=ARENA, start=start)
        driver.enable_interrupts()
        return driver

    def _check(self) -> None:
        in_flight = self.in_flight
        assert len(self._taken) == in_flight <= LARGEST, f"{len(self._taken)} popped, {in_flight} in flight"

    @property
    def in_flight(self) -> int:
        """Chains popped and not completed."""
        return self._pair.queues[0].in_flight

    def _accept(self, result: object) -> None:
        assert not (self.honest and isinstance(result, DriverError)), f"an honest driver is blamed: {result}"

    # The driver's steps.

    @step
    def add(
        self, segments: Sequence[Segment], *, indirect: bool = False, announce: bool = True, count: int = 1
    ) -> None:
        """The driver makes a sound chain available, or several alike, as far as it has room.

        Args:
            segments: Its buffers, readable ones first.
            indirect: In an indirect table, if that was negotiated.
            announce: Also store the available index.
            count: So many chains.
        """
        indirect = indirect and self._features["indirect"]
        needed = 1 if indirect else len(segments)
        for _ in range(count):
            if len(segments) <= self._layout.size and needed <= self._drivers[0].free_descriptors:
                for driver in self._drivers:
                    driver.add(segments, indirect=indirect, announce=announce)

    @step
    def add_hostile(self, chain: HostileChain) -> None:
        """The driver makes any descriptors available; from now on only agreement counts."""
        self.honest = False
        for driver in self._drivers:
            chain.offer(driver, TABLE)

    @step
    def jump(self, distance: int) -> None:
        """The driver announces what it did not write.

        Args:
            distance: Of its available index from the device's, 0 to 65535; in a packed ring the descriptor
                that far from the device's position gets the flags of an available one.
        """
        self.honest = False
        position, size = self._pair.queues[0].next_avail, self._layout.size
        for driver in self._drivers:
            if isinstance(driver.raw, PackedRings):
                slot = ((position & ~WRAP) + distance) % size
                driver.raw.set_flags(slot, DESC_AVAIL if position & WRAP else DESC_USED)
            else:
                driver.raw.set_avail_idx((position + distance) & U16)

    @step
    def poke(self, offset: int, value: int) -> None:
        """The driver stores 16 bits at an even offset from its descriptor table, if they hit the rings."""
        self.honest = False
        if self._layout.desc_table + offset + 2 <= self._layout.end:
            for memory in self._pair.memories:
                memory.store(self._layout.desc_table + offset, 2, value)

    @step
    def set_registers(self, layout: RingLayout) -> None:
        """The driver moves its queue anywhere: outside memory, misaligned, one part over another.

        Args:
            layout: Size and places; the format stays.
        """
        self.honest = False
        layout = attrs.evolve(layout, packed=self._layout.packed)
        for queue in self._pair.queues:
            layout.configure(queue, **self._features)

    @step
    def publish_and_kick(self) -> None:
        """The driver announces what it added; both devices have left it the same wish."""
        for driver in self._drivers:
            driver.publish()
        left, right = (driver.kick_needed() for driver in self._drivers)
        assert left == right, f"kick needed: {left}, by the twin's wish {right}"

    @step
    def take_used(self) -> None:
        """The driver takes used chains back; each comes once, with the same length from both devices."""
        if self.honest:
            left, right = (list(driver.completed()) for driver in self._drivers)
            assert left == right, f"completed: {left}, by the twin {right}"

    @step
    def set_interrupts(self, *, enabled: bool) -> None:
        """The driver says whether it wants to hear of used chains."""
        for driver in self._drivers:
            (driver.enable_interrupts if enabled else driver.disable_interrupts)()

    @step
    def wish(self, kind: int, ahead: int = 0) -> None:
        """The driver writes a wish about interrupts, whatever was negotiated.

        Args:
            kind: Its flags: 0 wants any, 1 none, 2 in a packed ring the one at the position; 0 to 65535.
            ahead: Its position, so many entries (packed: descriptors) behind the next one that the device
                uses, 0 to 65535.
        """
        used, size = self._pair.queues[0].next_used, self._layout.size
        for driver in self._drivers:
            if isinstance(driver.raw, PackedRings):
                driver.raw.set_driver_event(packed_move(used, ahead % size, size), kind)
            else:
                driver.raw.set_avail_flags(kind)
                driver.raw.set_used_event((used + ahead) & U16)

    # The device's steps.

    @step
    def pop(self) -> None:
        """One chain; a broken one stays with the device and can be completed."""
        result = self._pair.call(lambda queue, memory: queue.pop(memory))
        self._accept(result)
        if isinstance(result, DescriptorChain):
            self._take(_Taken(result.head, result.writable_bytes))
        elif isinstance(result, DriverError) and self.in_flight > len(self._taken):
            assert result.head is not None, f"a chain was taken, but {result!r} does not say which"
            self._take(_Taken(result.head, 0, -result.reason))

    @step
    def pop_batch(self, chains: int, spare: int = 0) -> None:
        """Several chains at once.

        Args:
            chains: Room for so many, at least 1.
            spare: Room for so many segments besides those that one chain can have.
        """
        result = self._pair.pop_batch(chains, self._pair.queues[0].size + spare or 1)
        self._accept(result)
        if isinstance(result, ChainBatch):
            assert not (self.honest and result.errors()), result.errors()
            self._take(*(_Taken(record[2], record[6], record[4]) for record in result.records()))

    def _take(self, *chains: _Taken) -> None:
        self._taken.extend(chains)
        self._popped.extend(chains)

    def _position(self, which: int, among: Sequence[_Taken]) -> int:
        """In order any place but the first is refused: so it is the first that most sequences mean."""
        return (which // 3 if self.in_order else which) % len(among)

    @step
    def add_used(self, which: int = 0, written: int = 0) -> None:
        """Complete one chain, or try to when there is none.

        Args:
            which: Position among the chains that were popped, counted round; in order a third.
            written: Bytes, cut to what the chain has room for.
        """
        chain = self._taken[self._position(which, self._taken)] if self._taken else _Taken(0, 0)
        length = min(written, chain.room, _U32)
        result = self._pair.call(lambda queue, memory: queue.add_used(memory, chain.head, length))
        self._accept(result)
        if self._taken and result is None:
            self._taken.remove(chain)

    @step
    def complete_batch(
        self, which: Sequence[int] = (), written: int = 0, *, excess: bool = False, failed: bool = False
    ) -> None:
        """Complete several chains in any order and decide about the interrupt.

        Args:
            which: Positions among the popped chains that are left, each counted round; in order a third.
            written: Bytes for each, cut to its room.
            excess: Say that one byte more was written than the chains have room for: nothing may happen.
            failed: Say that the chains were broken: none of them may pass for used completely.
        """
        left, batch = list(self._taken), ChainBatch(64, 64)
        for position in which[: len(left)]:
            chain = left.pop(self._position(position, left))
            room = min(chain.room, _U32 - 1)
            length = room + 1 if excess else min(written, room)
            error = chain.error or (-errno.EIO if failed else 0)
            batch.append(chain.head, [(0, room, True)], written=length, error=error)
        result = self._pair.call(lambda queue, memory: queue.complete_batch(memory, batch))
        self._accept(result)
        if isinstance(result, bool):
            self._taken = left

    def undoable(self) -> int:
        """How many of the last popped chains are in flight; a completed one bars those before it."""
        latest = itertools.takewhile(self._taken.__contains__, reversed(self._popped))
        return sum(1 for _ in latest)

    @step
    def undo_pop(self, count: int = 1) -> None:
        """Give the chains popped last back, as many as can be; the next pop finds them again."""
        count = min(count, self.undoable())
        if count:
            self._pair.call(lambda queue, _memory: queue.undo_pop(count))
            for chain in self._popped[-count:]:
                self._taken.remove(chain)
            del self._popped[-count:]

    @step
    def needs_notification(self) -> None:
        """Twice: the second call has nothing to announce."""
        self._accept(self._pair.call(lambda queue, memory: queue.needs_notification(memory)))
        again = self._pair.call(lambda queue, memory: queue.needs_notification(memory))
        assert again is not True, "the same used chains are announced twice"

    @step
    def enable_notification(self) -> None:
        """When it says that there is more, the next pop finds it or reports why not: nothing can spin."""
        more = self._pair.call(lambda queue, memory: queue.enable_notification(memory))
        self._accept(more)
        if more is True:
            result = self._pair.pop_batch(1, max(self._pair.queues[0].size, 1))
            self._accept(result)
            found = isinstance(result, ChainBatch) and len(result) == 1
            assert found or isinstance(result, DriverError), "there was more, but nothing to pop"
            if found:
                self._pair.call(lambda queue, _memory: queue.undo_pop())

    @step
    def disable_notification(self) -> None:
        """The hint lands in memory, or, with event index, nothing does."""
        self._accept(self._pair.call(lambda queue, memory: queue.disable_notification(memory)))

    @step
    def save_and_restore(self) -> None:
        """A restored queue goes on as if nothing had happened."""
        sides = zip(self._classes, self._pair.queues, strict=True)
        self._go_on_with(*(make.from_state(queue.state()) for make, queue in sides))

    @step
    def detach_and_attach(self, *, fresh: bool = False) -> None:
        """The ring goes away and comes back as addresses, indices and wraps; not with chains in flight.

        Args:
            fresh: Another queue goes on with it, which knows nothing but the features.
        """
        queue = self._pair.queues[0]
        if not isinstance(queue, MovableRing):
            return
        before = queue.next_avail, queue.next_used
        place = self._pair.call(lambda queue, _memory: cast("MovableRing", queue).detach())
        if not isinstance(place, RingPlace):
            return
        if fresh:
            self._go_on_with(*(self._negotiated(make) for make in self._classes))
        result = self._pair.call(lambda queue, memory: cast("MovableRing", queue).attach(place, memory))
        self._accept(result)
        after = self._pair.queues[0].next_avail, self._pair.queues[0].next_used
        assert result is not None or after == before, f"detached at {before}, attached at {after}"

    def _negotiated(self, queue_class: QueueClass) -> VirtQueue:
        queue = queue_class(LARGEST)
        for feature, value in self._features.items():
            setattr(queue, feature, value)
        return queue

    def _go_on_with(self, first: VirtQueue, second: VirtQueue) -> None:
        self._pair = Lockstep((first, second), self._pair.memories, self._pair.watched)
        self._pair.compare()

    @step
    def reset_ring(self) -> None:
        """Of this queue alone: its chains in flight are gone, its features stay, the driver begins anew."""
        if isinstance(self._pair.queues[0], ResettableRing):
            self._pair.call(lambda queue, _memory: cast("ResettableRing", queue).reset_ring())
            self._begin_anew()

    @step
    def reset(self) -> None:
        """Device and driver start again from nothing, on the same rings."""
        self._pair.call(lambda queue, _memory: queue.reset())
        self._begin_anew()

    def _begin_anew(self) -> None:
        start = self._layout.position(0)
        for queue in self._pair.queues:
            self._layout.configure(queue, **self._features)
            began = queue.next_avail, queue.next_used
            assert began == (start, start), f"a fresh ring begins at {began}, not {start}"
        self._drivers = [self._new_driver(memory, 0) for memory in self._pair.memories]
        self._taken, self._popped, self.honest = [], [], True
        self._pair.compare()
