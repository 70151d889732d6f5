"""A Hypothesis state machine that plays driver and device against any implementation of `VirtQueue`."""

import itertools
from collections.abc import Callable
from typing import Protocol

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._errors import DriverError
from virtio_queue._protocol import VirtQueue
from virtio_queue._state import QueueState
from virtio_queue.testing._driver import Driver
from virtio_queue.testing._lockstep import Lockstep
from virtio_queue.testing._rings import RingLayout
from virtio_queue.testing._twin import TwinQueue
from virtio_queue.testing.strategies import Mutation, indices, mutations, queue_sizes, segment_lists

__all__ = ("QueueClass", "queue_machine")

_BASE, _ROOM = 0x4000, 0x8000
_RINGS, _DATA, _ARENA = _BASE, _BASE + 0x1000, _BASE + 0x2000
_LARGEST = 16


class QueueClass(Protocol):
    """A class of queues, such as `virtio_queue.Queue`."""

    def __call__(self, max_size: int, /) -> VirtQueue:
        """A fresh queue."""

    def from_state(self, state: QueueState, mem: GuestMemory | None = None) -> VirtQueue:
        """A restored queue."""


def queue_machine(
    queue_class: QueueClass, make_memory: Callable[[int, int], GuestMemory]
) -> type[RuleBasedStateMachine]:
    """A state machine that compares an implementation with the twin, step by step.

    Both get the same driver: it adds direct and indirect chains, kicks, takes used chains back, suppresses
    interrupts, and may turn hostile. Results, errors, saved states and guest memory must agree at each step;
    with an honest driver nothing may be reported, lost or repeated.

    Args:
        queue_class: The implementation.
        make_memory: Makes zeroed writable guest memory of (address, bytes), called twice for each run.

    Returns:
        The class; its `TestCase` attribute is what pytest collects.
    """

    class QueueMachine(_QueueMachine):
        classes = (queue_class, TwinQueue)
        memory_factory = staticmethod(make_memory)

    return QueueMachine


@attrs.frozen(eq=False)  # a hostile driver can make the same head available twice
class _Taken:
    head: int
    room: int


class _QueueMachine(RuleBasedStateMachine):
    classes: tuple[QueueClass, QueueClass]
    memory_factory: Callable[[int, int], GuestMemory]

    @initialize(size=queue_sizes(_LARGEST), start=indices(), event_idx=st.booleans(), indirect=st.booleans())
    def begin(self, size: int, start: int, event_idx: bool, indirect: bool) -> None:
        """Two memories, two drivers, two queues that have come as far as `start`."""
        layout = RingLayout.at(_RINGS, size)
        memories = tuple(self.memory_factory(_BASE, _ROOM) for _ in self.classes)
        self.drivers = [
            Driver(
                memory, layout, event_idx=event_idx, indirect=indirect, arena=(_ARENA, 0x4000), start=start
            )
            for memory in memories
        ]
        queues = tuple(queue_class(_LARGEST) for queue_class in self.classes)
        for queue in queues:
            layout.configure(queue, event_idx=event_idx, indirect=indirect)
        state = attrs.evolve(queues[0].state(), next_avail=start, next_used=start)
        first, second = (queue_class.from_state(state) for queue_class in self.classes)
        self.pair = Lockstep((first, second), (memories[0], memories[1]), [(_BASE, _ROOM)])
        self.layout, self.event_idx, self.indirect = layout, event_idx, indirect
        self.taken: list[_Taken] = []
        self.popped: list[_Taken] = []
        self.honest = True

    def _accept(self, result: object) -> None:
        """An honest driver is never blamed."""
        assert not (self.honest and isinstance(result, DriverError)), result

    @rule(segments=segment_lists((_DATA, 0x1000), 5), indirect=st.booleans(), announce=st.booleans())
    def add(self, segments: list[Segment], indirect: bool, announce: bool) -> None:
        """The driver makes a chain available, if it has room."""
        indirect = indirect and self.indirect
        needed = 1 if indirect else len(segments)
        if len(segments) <= self.layout.size and needed <= self.drivers[0].free_descriptors:
            for driver in self.drivers:
                driver.add(segments, indirect=indirect, announce=announce)

    @rule()
    def publish_and_kick(self) -> None:
        """Both devices left the driver the same wish."""
        for driver in self.drivers:
            driver.publish()
        left, right = (driver.kick_needed() for driver in self.drivers)
        assert left == right

    @rule()
    def pop(self) -> None:
        """One chain; a broken one stays with the device and can be completed."""
        result = self.pair.call(lambda queue, memory: queue.pop(memory))
        self._accept(result)
        if isinstance(result, DescriptorChain):
            self._take(_Taken(result.head, result.writable_bytes))
        elif isinstance(result, DriverError) and self._in_flight() > len(self.taken):
            assert result.head is not None
            self._take(_Taken(result.head, 0))

    def _take(self, *chains: _Taken) -> None:
        self.taken.extend(chains)
        self.popped.extend(chains)

    def _in_flight(self) -> int:
        queue = self.pair.queues[0]
        return (queue.next_avail - queue.next_used) & 0xFFFF

    @rule(chains=st.integers(1, 6), spare=st.integers(0, 4))
    def pop_batch(self, chains: int, spare: int) -> None:
        """Several chains; the batch may run out of chains or of segments."""
        result = self.pair.pop_batch(chains, self.layout.size + spare)
        self._accept(result)
        if isinstance(result, ChainBatch):
            assert not (self.honest and result.errors()), result.errors()
            self._take(*(_Taken(record[2], record[6]) for record in result.records()))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def add_used(self, data: st.DataObject) -> None:
        """Complete one chain, not always the oldest."""
        chain = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1), label="which"))
        written = data.draw(st.integers(0, min(chain.room, 0xFFFF_FFFF)), label="written")
        self._accept(self.pair.call(lambda queue, memory: queue.add_used(memory, chain.head, written)))

    @rule(data=st.data(), count=st.integers(0, 6))
    def complete_batch(self, data: st.DataObject, count: int) -> None:
        """Complete several chains in any order and decide about the interrupt."""
        chosen = data.draw(st.permutations(self.taken), label="order")[:count]
        batch = ChainBatch(8, 8)
        for chain in chosen:
            self.taken.remove(chain)
            written = data.draw(st.integers(0, min(chain.room, 0xFFFF_FFFF)), label="written")
            batch.append(chain.head, [(0, min(chain.room, 0xFFFF_FFFF), True)], written=written)
        self._accept(self.pair.call(lambda queue, memory: queue.complete_batch(memory, batch)))

    def _undoable(self) -> int:
        """How many of the last popped chains are in flight; a completed one bars those before it."""
        latest = itertools.takewhile(self.taken.__contains__, reversed(self.popped))
        return sum(1 for _ in latest)

    @precondition(lambda self: self._undoable())
    @rule(data=st.data())
    def undo_pop(self, data: st.DataObject) -> None:
        """Give the chains popped last back; the next pop finds them again."""
        count = data.draw(st.integers(1, self._undoable()), label="count")
        self.pair.call(lambda queue, _memory: queue.undo_pop(count))
        for chain in self.popped[-count:]:
            self.taken.remove(chain)
        del self.popped[-count:]

    @rule()
    def needs_notification(self) -> None:
        """Twice: the second call has nothing to announce."""
        self._accept(self.pair.call(lambda queue, memory: queue.needs_notification(memory)))
        assert self.pair.call(lambda queue, memory: queue.needs_notification(memory)) is False

    @rule()
    def enable_notification(self) -> None:
        """When it says that there is more, the next pop finds it or reports why not: nothing can spin."""
        more = self.pair.call(lambda queue, memory: queue.enable_notification(memory))
        if more is True:
            result = self.pair.pop_batch(1, self.layout.size)
            assert isinstance(result, DriverError) or (isinstance(result, ChainBatch) and len(result) == 1)
            self._accept(result)
            if isinstance(result, ChainBatch):
                self.pair.call(lambda queue, _memory: queue.undo_pop())

    @rule()
    def disable_notification(self) -> None:
        """The hint lands in memory, or, with event index, nothing does."""
        self._accept(self.pair.call(lambda queue, memory: queue.disable_notification(memory)))

    @precondition(lambda self: self.honest)
    @rule()
    def take_used(self) -> None:
        """The driver gets each chain back once, with the same length from both devices."""
        left, right = (list(driver.completed()) for driver in self.drivers)
        assert left == right

    @rule(enable=st.booleans())
    def suppress_interrupts(self, enable: bool) -> None:
        """The driver says what it wants to hear of."""
        for driver in self.drivers:
            (driver.enable_interrupts if enable else driver.disable_interrupts)()

    @rule()
    def save_and_restore(self) -> None:
        """A restored queue goes on as if nothing had happened."""
        first, second = (
            queue_class.from_state(queue.state(), memory)
            for queue_class, queue, memory in zip(
                self.classes, self.pair.queues, self.pair.memories, strict=True
            )
        )
        self.pair = Lockstep((first, second), self.pair.memories, self.pair.watched)

    @rule(changes=st.lists(mutations(0x200), min_size=1, max_size=6))
    def corrupt(self, changes: list[Mutation]) -> None:
        """The driver turns hostile: from now on only agreement between the two counts."""
        self.honest = False
        for change in changes:
            for memory in self.pair.memories:
                change.apply(memory, self.layout)

    @invariant()
    def no_more_in_flight_than_entries(self) -> None:
        """A guest cannot make the device hold more requests than the queue has entries."""
        assert len(self.taken) == self._in_flight() <= self.layout.size
