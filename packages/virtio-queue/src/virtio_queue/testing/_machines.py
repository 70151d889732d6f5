"""The machines behind `ordering.explore`: states as tuples, and the steps that lead from one to the next.

A state holds for each thread where its program stands: the arguments of its round and the values it was sent
since. Generators cannot be copied, so a round is run again from its start, and what it did next is
remembered.

To visit fewer states, a thread that is about to store does so before anybody else moves. That hides no
behaviour: under TSO the store only enters the thread's own buffer, under C11 it only adds a message that
others need not read.
"""

from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import attrs

from virtio_queue.testing._operations import (
    Add,
    Check,
    Fence,
    Load,
    Notify,
    Operation,
    Order,
    Scenario,
    Sleep,
    Store,
)

Where = tuple[tuple[int, ...], tuple[int, ...]]  # arguments of the round, values sent since


class State(Protocol):
    """What every state has: where the program of each thread stands."""

    @property
    def where(self) -> tuple[Where, ...]: ...


_S = TypeVar("_S", bound=State)


class Machine(Generic[_S]):
    """What all models have in common: programs, places, bells.

    Attributes:
        points: Ordering points met so far.
    """

    stores_first = True  # a test sees that it changes nothing but the number of states

    def __init__(self, scenario: Scenario, without: frozenset[str]) -> None:
        self.points: set[str] = set()
        self.threads = scenario.threads
        self.initial = tuple(scenario.memory.values())
        self.place = {name: index for index, name in enumerate(scenario.memory)}
        self._without = without
        self._known: dict[tuple[int, Where], Operation | None] = {}

    def start(self) -> _S:
        """The first state."""
        raise NotImplementedError

    def steps(self, state: _S) -> Iterator[tuple[str, _S]]:
        """What can happen next."""
        raise NotImplementedError

    def violation(self, state: _S) -> str | None:
        """What is wrong in this state."""
        raise NotImplementedError

    def stuck(self, state: _S) -> str | None:
        """What is wrong when nothing can happen next."""
        left = [
            f"{thread.name} waits for {operation.bell}"
            for index, thread in enumerate(self.threads)
            if isinstance(operation := self.next(state, index), Sleep)
        ]
        ended = all(
            thread.serves or self.next(state, index) is None for index, thread in enumerate(self.threads)
        )
        return None if ended else f"nobody goes on: {', '.join(left)}"

    def next(self, state: _S, index: int) -> Operation | None:
        """The next operation of a thread, None at its end."""
        return self._known[index, state.where[index]]

    def begin(self) -> tuple[Where, ...]:
        """Where all threads start."""
        return tuple(self._settled(index, (thread.start, ())) for index, thread in enumerate(self.threads))

    def sent(self, state: _S, index: int, value: int = 0) -> tuple[Where, ...]:
        """Where the threads stand once one was sent the value of its operation."""
        arguments, values = state.where[index]
        moved = self._settled(index, (arguments, (*values, value)))
        return (*state.where[:index], moved, *state.where[index + 1 :])

    def storing(self, state: _S) -> Iterator[int]:
        """Threads whose next operation is a store, and which go first (see above)."""
        if not self.stores_first:
            return iter(())
        return (i for i in range(len(self.threads)) if isinstance(self.next(state, i), Store))

    def wrong(self, index: int, check: Check, found: int) -> str:
        """A check that can read another value."""
        return f"{self.threads[index].name} reads {check.what or check.place} = {found}, not {check.expected}"

    def label(self, index: int, what: str) -> str:
        """A line of the trace."""
        return f"{self.threads[index].name}: {what}"

    def _settled(self, index: int, where: Where) -> Where:
        while (index, where) not in self._known:
            outcome = self._run(index, where)
            if not isinstance(outcome, tuple):
                self._known[index, where] = outcome
                break
            where = (outcome, ())
        return where

    def _run(self, index: int, where: Where) -> Operation | tuple[int, ...] | None:
        arguments, values = where
        round_ = self.threads[index].program(*arguments)
        left = list(reversed(values))
        try:
            operation = next(round_)
            while True:
                if self._left_out(operation):
                    operation = round_.send(0)
                elif left:
                    operation = round_.send(left.pop())
                else:
                    return self._weakened(operation)
        except StopIteration as end:
            following: tuple[int, ...] | None = end.value
            return following
        finally:
            round_.close()

    def _left_out(self, operation: Operation) -> bool:
        return isinstance(operation, Fence) and self._point(operation) in self._without

    def _weakened(self, operation: Operation) -> Operation:
        if isinstance(operation, Load | Store | Add) and self._point(operation) in self._without:
            return attrs.evolve(operation, order=Order.RELAXED)
        return operation

    def _point(self, operation: Load | Store | Add | Fence) -> str | None:
        if operation.name:
            self.points.add(operation.name)
        return operation.name or None


_T = TypeVar("_T")


def replaced(values: tuple[_T, ...], index: int, value: _T) -> tuple[_T, ...]:
    """The tuple with one element exchanged."""
    return (*values[:index], value, *values[index + 1 :])


class BufferState(NamedTuple):
    """Memory with a store buffer for each thread; `wrong` says what the last step violated."""

    where: tuple[Where, ...]
    memory: tuple[int, ...]
    buffers: tuple[tuple[Store | Notify, ...], ...]
    bells: frozenset[str] = frozenset()
    wrong: str = ""


class BufferMachine(Machine[BufferState]):
    """TSO; without buffers SC."""

    def __init__(self, scenario: Scenario, without: frozenset[str], *, buffered: bool) -> None:
        super().__init__(scenario, without)
        self._buffered = buffered

    def start(self) -> BufferState:
        """Everything at its beginning."""
        return BufferState(self.begin(), self.initial, ((),) * len(self.threads))

    def violation(self, state: BufferState) -> str | None:
        """A check that failed."""
        return state.wrong or None

    def steps(self, state: BufferState) -> Iterator[tuple[str, BufferState]]:
        """Each thread's next operation, and the oldest store of each buffer."""
        if self._buffered:
            for index in self.storing(state):
                yield from self._operate(state, index)
                return
        for index in range(len(self.threads)):
            yield from self._operate(state, index)
            if state.buffers[index]:
                yield self._drained(state, index)

    def _drained(self, state: BufferState, index: int) -> tuple[str, BufferState]:
        oldest, *rest = state.buffers[index]
        buffers = replaced(state.buffers, index, tuple(rest))
        label = self.label(index, f"{oldest} reaches memory")
        return label, self._performed(state._replace(buffers=buffers), oldest)

    def _performed(self, state: BufferState, operation: Store | Notify) -> BufferState:
        if isinstance(operation, Notify):
            return state._replace(bells=state.bells | {operation.bell})
        place = self.place[operation.place]
        return state._replace(memory=replaced(state.memory, place, operation.value))

    def _value(self, state: BufferState, index: int, place: str) -> int:
        """What the thread reads: its own newest store, else memory."""
        for store in reversed(state.buffers[index]):
            if isinstance(store, Store) and store.place == place:
                return store.value
        return state.memory[self.place[place]]

    def _operate(self, state: BufferState, index: int) -> Iterator[tuple[str, BufferState]]:
        operation = self.next(state, index)
        empty = not state.buffers[index]
        value, wrong, changed = 0, "", state
        match operation:
            case None:
                return
            case Load(place):
                value = self._value(state, index, place)
            case Check(place, expected):
                found = self._value(state, index, place)
                wrong = "" if found == expected else self.wrong(index, operation, found)
            case Store() | Notify():
                if self._buffered:
                    buffers = replaced(state.buffers, index, (*state.buffers[index], operation))
                    changed = state._replace(buffers=buffers)
                else:
                    changed = self._performed(state, operation)
            case Add(place, addend):
                if not empty:
                    return
                value = self._value(state, index, place)
                changed = self._performed(state, Store(place, value + addend))
            case Fence(order):
                if not empty and order is Order.SEQ_CST:
                    return
            case Sleep(bell):
                if bell not in state.bells:
                    return
                changed = state._replace(bells=state.bells - {bell})
        moved = changed._replace(where=self.sent(state, index, value), wrong=wrong)
        shown = f"{operation} = {value}" if isinstance(operation, Load | Add) else str(operation)
        yield self.label(index, shown), moved
