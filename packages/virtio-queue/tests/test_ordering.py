"""The checker's machines against litmus tests, whose outcomes under each model are in every textbook."""

import attrs
import pytest
from virtio_queue.testing._machines import Machine
from virtio_queue.testing.ordering import (
    Add,
    BoundError,
    Check,
    Fence,
    Load,
    Model,
    Notify,
    Order,
    Scenario,
    Sleep,
    Store,
    Thread,
    explore,
)

ACQ, REL, FULL = Order.ACQUIRE, Order.RELEASE, Order.SEQ_CST


def outcome(*threads, expect=None, **places):
    """A scenario that gets stuck exactly when every thread of `expect` loaded the values given for it.

    Each thread is a list of operations. Who saw what was asked for counts; the last of them sleeps for ever.
    """
    expect = expect or {}

    def program(index, operations):
        def body():
            seen = []
            for operation in operations:
                value = yield operation
                if isinstance(operation, Load | Add):
                    seen.append(value)
            if index in expect and tuple(seen) == expect[index]:
                before = yield Add("hits", 1, Order.RELAXED)
                if before == len(expect) - 1:
                    yield Sleep("for ever")

        return body

    named = [Thread(f"T{i}", program(i, operations)) for i, operations in enumerate(threads)]
    words = {op.place for thread in threads for op in thread if hasattr(op, "place")}
    return Scenario(dict.fromkeys(sorted(words), 0) | places | {"hits": 0}, tuple(named))


def sb(first=(), second=()):
    """Store buffering: does each load miss the other's store?"""
    return outcome(
        [Store("x", 1), *first, Load("y")], [Store("y", 1), *second, Load("x")], expect={0: (0,), 1: (0,)}
    )


def mp(store=Order.RELAXED, load=Order.RELAXED, before=(), after=()):
    """Message passing: is the flag seen without the message?"""
    writer = [Store("message", 1), *before, Store("flag", 1, store)]
    return outcome(writer, [Load("flag", load), *after, Load("message")], expect={1: (1, 0)})


def lb(load=Order.RELAXED):
    """Load buffering: does the check see a store that only its own later store leads to?"""

    def first():
        yield Check("x", 0)
        yield Store("y", 1, load)

    def second():
        if (yield Load("y")):
            yield Store("x", 1)

    return Scenario({"x": 0, "y": 0}, (Thread("first", first), Thread("second", second)))


def iriw(order, fence=()):
    """Independent reads of independent writes: do two readers see two stores in different orders?"""
    return outcome(
        [Store("x", 1)],
        [Store("y", 1)],
        [Load("x", order), *fence, Load("y", order)],
        [Load("y", order), *fence, Load("x", order)],
        expect={2: (1, 0), 3: (1, 0)},
    )


def wrc(order):
    """Write-to-read causality: a message passed on by a third thread."""
    release = REL if order is ACQ else Order.RELAXED

    def middle():
        if (yield Load("x", order)):
            yield Store("y", 1, release)

    scenario = outcome([Store("x", 1, release)], [Load("y", order), Load("x")], expect={1: (1, 0)}, y=0)
    return attrs.evolve(scenario, threads=(*scenario.threads, Thread("middle", middle)))


FENCE = (Fence(FULL),)
NOWHERE, C11, WEAK = set(), {Model.C11}, {Model.TSO, Model.C11}
LITMUS = {
    "SB": (sb(), WEAK),
    "SB, one fence": (sb(first=FENCE), WEAK),
    "SB, two fences": (sb(FENCE, FENCE), NOWHERE),
    "SB, acquire and release fences": (sb((Fence(Order.ACQ_REL),), (Fence(Order.ACQ_REL),)), WEAK),
    "SB, atomic additions instead": (
        outcome(
            [Add("x", 1, Order.RELAXED), Load("y")],
            [Add("y", 1, Order.RELAXED), Load("x")],
            expect={0: (0, 0), 1: (0, 0)},
        ),
        C11,
    ),
    "MP": (mp(), C11),
    "MP, release only": (mp(store=REL), C11),
    "MP, acquire only": (mp(load=ACQ), C11),
    "MP, both": (mp(REL, ACQ), NOWHERE),
    "MP, fences": (mp(before=(Fence(REL),), after=(Fence(ACQ),)), NOWHERE),
    "MP, release fence only": (mp(before=(Fence(REL),)), C11),
    "MP, release fence and acquire": (mp(load=ACQ, before=(Fence(REL),)), NOWHERE),
    "MP, release and acquire fence": (mp(store=REL, after=(Fence(ACQ),)), NOWHERE),
    "MP, an addition in between": (
        outcome(
            [Store("message", 1), Store("flag", 1, REL)],
            [Add("flag", 1, Order.RELAXED)],
            [Load("flag", ACQ), Load("message")],
            expect={2: (2, 0)},
        ),
        NOWHERE,
    ),
    "LB": (lb(), C11),
    "LB, release": (lb(REL), NOWHERE),
    "IRIW": (iriw(Order.RELAXED), C11),
    "IRIW, acquire": (iriw(ACQ), C11),
    "IRIW, fences": (iriw(Order.RELAXED, FENCE), NOWHERE),
    "WRC": (wrc(Order.RELAXED), C11),
    "WRC, release and acquire": (wrc(ACQ), NOWHERE),
    "CoRR": (outcome([Store("x", 1)], [Load("x"), Load("x")], expect={1: (1, 0)}), NOWHERE),
    "CoWW and CoRR: two writers, two readers disagree": (
        outcome(
            [Store("x", 1)],
            [Store("x", 2)],
            [Load("x"), Load("x")],
            [Load("x"), Load("x")],
            expect={2: (1, 2), 3: (2, 1)},
        ),
        NOWHERE,
    ),
    "2+2W: each place ends with the first store of a thread": (
        outcome(
            [Store("x", 1), Store("y", 2)],
            [Store("y", 1), Store("x", 2)],
            [Load("x"), Load("x")],
            [Load("y"), Load("y")],
            expect={2: (2, 1), 3: (2, 1)},
        ),
        C11,
    ),
    "atomic additions are atomic": (
        outcome([Add("x", 1, Order.RELAXED)], [Add("x", 1, Order.RELAXED)], expect={0: (0,), 1: (0,)}),
        NOWHERE,
    ),
    "own stores are read back": (outcome([Store("x", 1), Load("x")], expect={0: (0,)}), NOWHERE),
    "a bell carries what came before": (
        outcome([Store("x", 1), Notify("bell")], [Sleep("bell"), Load("x")], expect={1: (0,)}),
        NOWHERE,
    ),
}


@pytest.mark.parametrize("model", Model)
@pytest.mark.parametrize("name", LITMUS)
def test_litmus(name, model):
    """The outcome is found exactly where the model allows it."""
    scenario, allowed = LITMUS[name]
    found = explore(scenario, model)
    assert (found.violation is not None) is (model in allowed), "\n".join(found.trace)
    assert bool(found.trace) is bool(found.violation)


@pytest.mark.parametrize("name", [name for name in LITMUS if len(LITMUS[name][0].threads) < 4])
def test_order_of_stores_is_explored(name, monkeypatch):
    """That stores go first saves states and finds the same: nothing is lost that only another order shows."""
    scenario, _ = LITMUS[name]
    reduced = {model: explore(scenario, model) for model in Model}
    monkeypatch.setattr(Machine, "stores_first", False)
    for model, found in reduced.items():
        whole = explore(scenario, model)
        assert whole.violation == found.violation
        assert whole.violation or whole.states >= found.states


def handshake():
    """The example of the module."""

    def sleeper():
        yield Store("asleep", 1)
        yield Fence(FULL, "before-sleep")
        if not (yield Load("work")):
            yield Sleep("bell")

    def waker():
        yield Store("work", 1)
        yield Fence(FULL, "before-look")
        if (yield Load("asleep")):
            yield Notify("bell")

    return Scenario({"asleep": 0, "work": 0}, (Thread("sleeper", sleeper), Thread("waker", waker)))


def test_trace_tells_what_happened():
    """The shortest way into the bad state, step by step."""
    found = explore(handshake(), Model.C11, without={"before-look"})
    assert found.violation == "nobody goes on: sleeper waits for bell"
    assert found.trace[-1] == "waker: load asleep = 0 (1 behind)"
    assert "sleeper: fence [seq_cst, before-sleep]" in found.trace
    assert found.points == {"before-sleep", "before-look"}


def test_who_serves_may_sleep_at_the_end():
    """A thread that serves is no reason to complain, one that does not is."""

    def server(served):
        yield Sleep("bell")
        return (served + 1,)

    def client():
        yield Notify("bell")

    threads = (Thread("server", server, (0,), serves=True), Thread("client", client))
    for model in Model:
        assert explore(Scenario({}, threads), model).violation is None
    found = explore(Scenario({}, (Thread("server", server, (0,)), threads[1])), Model.TSO)
    assert found.violation == "nobody goes on: server waits for bell"


def test_bound():
    """What is not explored to its end proves nothing."""
    with pytest.raises(BoundError, match="more than 5 states"):
        explore(handshake(), Model.SC, limit=5)


@pytest.mark.parametrize(
    ("make", "order", "message"),
    [
        (lambda order: Load("x", order), REL, "order is release, must be one of relaxed, acquire"),
        (lambda order: Store("x", 1, order), FULL, "order is seq_cst, must be one of relaxed, release"),
        (lambda order: Fence(order), Order.RELAXED, "order is relaxed, must be one of acquire, release"),
        (lambda order: Add("x", 1, order), FULL, "order is seq_cst, must be one of relaxed"),
    ],
)
def test_orders_that_an_operation_cannot_have(make, order, message):
    """The machines know the orders that the operations take, and no others."""
    with pytest.raises(ValueError, match=message):
        make(order)
