r"""Which order of accesses small concurrent programs rely on: exhaustive exploration under SC, TSO and C11.

A lock-free protocol is written down as a few threads of loads, stores, fences and sleeps. `explore` runs
every interleaving and every reordering that a memory model allows, and finds the shortest way into a state
where nobody goes on (a lost wake-up) or where a thread reads something else than it must. Each operation that
orders others can have a name; leaving one out must break the protocol, or it is not needed.
`virtio_queue.testing.notifications` has the programs of virtqueues::

    from virtio_queue.testing.ordering import Fence, Load, Model, Notify, Order, Scenario, Sleep, Store
    from virtio_queue.testing.ordering import Thread, explore

    def sleeper():
        yield Store("asleep", 1)
        yield Fence(Order.SEQ_CST, "before-sleep")
        if not (yield Load("work")):
            yield Sleep("bell")

    def waker():
        yield Store("work", 1)
        yield Fence(Order.SEQ_CST, "before-look")
        if (yield Load("asleep")):
            yield Notify("bell")

    handshake = Scenario({"asleep": 0, "work": 0}, (Thread("sleeper", sleeper), Thread("waker", waker)))
    assert explore(handshake, Model.TSO).violation is None
    print("\n".join(explore(handshake, Model.TSO, without={"before-look"}).trace))
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import attrs

from virtio_queue.testing._machines import BufferMachine, Machine, State
from virtio_queue.testing._operations import (
    Add,
    Check,
    Fence,
    Load,
    Model,
    Notify,
    Operation,
    Order,
    Round,
    Scenario,
    Sleep,
    Store,
    Thread,
)
from virtio_queue.testing._views import ViewMachine

_S = TypeVar("_S", bound=State)


@attrs.frozen
class Outcome:
    """What an exploration found.

    Attributes:
        states: How many were visited.
        violation: What went wrong, None when no reachable state is bad.
        trace: The shortest way there, a line for each step.
        points: Names of the ordering points that were met, left-out ones too.
    """

    states: int
    violation: str | None
    trace: tuple[str, ...]
    points: frozenset[str]


class BoundError(Exception):
    """The scenario has more states than the caller wanted to see; nothing was proved."""


def explore(
    scenario: Scenario, model: Model, *, without: Collection[str] = (), limit: int = 2_000_000
) -> Outcome:
    """Visit every state that the threads can reach, nearest first, until one is bad.

    Bad is a state in which no thread can go on though one that does not serve has not ended, and one in which
    a `Check` can read another value than it expects. Programs that spin for ever without changing anything
    are not found out.

    Args:
        scenario: The programs and their memory.
        model: What may be reordered.
        without: Ordering points to leave out: fences do nothing, accesses are relaxed.
        limit: Most states to visit.

    Raises:
        BoundError: More than `limit` states.
        KeyError: A program names a word that is not in the memory.
    """
    if model is Model.C11:
        return _search(ViewMachine(scenario, frozenset(without)), limit)
    return _search(BufferMachine(scenario, frozenset(without), buffered=model is Model.TSO), limit)


def _search(run: Machine[_S], limit: int) -> Outcome:
    start = run.start()
    seen: dict[_S, tuple[_S, str] | None] = {start: None}
    ahead = deque([start])
    while ahead:
        state = ahead.popleft()
        found = run.violation(state)
        steps = [] if found else list(run.steps(state))
        if not found and not steps:
            found = run.stuck(state)
        if found:
            return Outcome(len(seen), found, tuple(_way(seen, state)), frozenset(run.points))
        for label, following in steps:
            if following not in seen:
                seen[following] = (state, label)
                ahead.append(following)
        if len(seen) > limit:
            raise BoundError(f"more than {limit} states")
    return Outcome(len(seen), None, (), frozenset(run.points))


def _way(seen: Mapping[_S, tuple[_S, str] | None], state: _S) -> Iterator[str]:
    labels = []
    while (before := seen[state]) is not None:
        state, label = before
        labels.append(label)
    return reversed(labels)


__all__ = (
    "Add",
    "BoundError",
    "Check",
    "Fence",
    "Load",
    "Model",
    "Notify",
    "Operation",
    "Order",
    "Outcome",
    "Round",
    "Scenario",
    "Sleep",
    "Store",
    "Thread",
    "explore",
)
