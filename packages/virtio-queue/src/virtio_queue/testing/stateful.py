"""Hypothesis state machines that look for trouble: in any implementation of `VirtQueue`, in any device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
from vmm_memory import GuestMemory

try:
    from hypothesis import note
    from hypothesis import strategies as st
    from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "virtio_queue.testing.stateful needs Hypothesis: pip install 'virtio-queue[testing]'", name=error.name
    ) from error

from virtio_queue._chain import Segment
from virtio_queue.testing import strategies
from virtio_queue.testing._device_trial import Answer, Device, DeviceTrial
from virtio_queue.testing._hostile import HostileChain
from virtio_queue.testing._implementation import QueueClass
from virtio_queue.testing._queue_trial import QueueTrial
from virtio_queue.testing._record import Step, Trial
from virtio_queue.testing._trial_memory import BORDER, DATA, LARGEST, RINGS, trial_memory
from virtio_queue.testing.strategies import (
    Attack,
    Request,
    hostile_chains,
    hostile_layouts,
    indices,
    mutations,
)

__all__ = ("device_machine", "driver_scripts", "queue_machine")


def queue_machine(
    queue_class: QueueClass,
    *,
    packed: bool | None = None,
    in_order: bool | None = None,
    make_memory: Callable[[], GuestMemory] = trial_memory,
) -> type[RuleBasedStateMachine]:
    """A state machine that compares an implementation with the twin, step by step: see `QueueTrial`.

    The driver adds direct and indirect chains, kicks, takes used chains back, suppresses interrupts, and may
    turn hostile in every way that `Attack` names. Queues are saved and restored, reset, and, where they have
    the calls for it (`ResettableRing`, `MovableRing`), reset alone, detached and attached. A failure is
    printed as a program that does it again.

    Args:
        queue_class: The implementation.
        packed: Only this format; None for both.
        in_order: VIRTIO_F_IN_ORDER always or, for an implementation without it, never; None for both.
        make_memory: Makes zeroed guest memory laid out like that of `trial_memory`; called twice a run.

    Returns:
        The class; its `TestCase` attribute is what pytest collects.
    """

    class QueueMachine(_QueueMachine):
        subject = queue_class
        only_packed, only_in_order = packed, in_order
        memory_factory = staticmethod(make_memory)

    return QueueMachine


def device_machine(
    make_device: Callable[[], Device],
    *,
    requests: st.SearchStrategy[Request] | None = None,
    answer: Answer | None = None,
    keeps: bool = False,
    packed: bool | None = None,
    in_order: bool = False,
) -> type[RuleBasedStateMachine]:
    """A state machine that looks for a way to make a device break a rule: see `DeviceTrial`.

    Requests come direct and indirect, with and without event index, in rings of either format; the driver
    suppresses interrupts, wakes the device without cause, and may turn hostile. A failure is printed as a
    program that does it again.

    Args:
        make_device: Makes a fresh device, a callable that takes queue and memory: its class, or a lambda.
        requests: What the driver asks, as (contents to read, lengths to write); None for `requests()`.
        answer: What the device must write, given the bytes of a request and its room; None: anything.
        keeps: The device may keep chains for later.
        packed: Only this format; None for both.
        in_order: With VIRTIO_F_IN_ORDER: for a device that completes requests as they came, and offers it.

    Returns:
        The class; its `TestCase` attribute is what pytest collects.
    """
    made, wanted = make_device, answer

    class DeviceMachine(_DeviceMachine):
        subject = staticmethod(made)
        answer = None if wanted is None else staticmethod(wanted)
        keeps_chains, has_order = keeps, in_order
        only_packed = packed

        @rule(step=_device_steps(strategies.requests() if requests is None else requests))
        def take(self, step: Step) -> None:
            _noted(self.trial, step)

    return DeviceMachine


class _Printer(Protocol):
    def text(self, text: str) -> None: ...


@attrs.frozen
class _Script:
    """A script that is only made when Hypothesis prints it: once, at the end."""

    trial: Trial

    def _repr_pretty_(self, printer: _Printer, _cycle: bool) -> None:
        printer.text(self.trial.script(self.trial.shortened()))


def _noted(trial: Trial, step: Step) -> None:
    """Take a step; when it fails, have Hypothesis print the script."""
    try:
        trial.perform(step)
    except Exception:
        note(_Script(trial))
        raise


# One draw where one will do: what Hypothesis draws it has to shrink.


def _ring_places() -> st.SearchStrategy[int]:
    """Mostly in one region; otherwise any part may lie over the border of two."""
    return st.one_of(st.just(RINGS), st.integers(0, 25).map(lambda lines: BORDER - 16 * lines))


def _starts() -> st.SearchStrategy[int]:
    """Free-running indices, every other one so that the first chains make it wrap."""
    return st.one_of(st.integers(0, 3).map(lambda left: -left & 0xFFFF), indices())


def _sound() -> st.SearchStrategy[tuple[Segment, ...]]:
    """Legal chains, of up to five buffers with different lengths."""

    def chain(count: int, readable: int, length: int) -> tuple[Segment, ...]:
        first = readable % (count + 1)  # that is writable
        return tuple(Segment(DATA + 0x100 * n, length >> 2 * n, n >= first) for n in range(count))

    return st.builds(chain, st.integers(1, 5), st.integers(0, 5), st.integers(0, 0x3000))


def _orders() -> st.SearchStrategy[tuple[int, ...]]:
    """Up to four positions among chains; the digits of one number, 0 ends them."""

    def digits(number: int) -> tuple[int, ...]:
        return () if number % 5 == 0 else (number % 5 - 1, *digits(number // 5))

    return st.integers(0, 5**4 - 1).map(digits)


def _misbehaviour() -> st.SearchStrategy[Step]:
    """What breaks the whole ring, not one chain."""
    jumps = st.one_of(st.integers(1, 20), st.integers(0, 65535))
    return st.one_of(
        jumps.map(lambda distance: Step("jump", {"distance": distance})),
        mutations(0x200).map(lambda change: Step("poke", {"offset": change.offset, "value": change.value})),
        hostile_layouts(largest=LARGEST).map(lambda layout: Step("set_registers", {"layout": layout})),
    )


_TABLES = (Attack.TABLE, Attack.LONG_TABLE, Attack.NESTED, Attack.COMBINED)
# How sound chains come: most are announced at once.
_WAYS: tuple[Mapping[str, object], ...] = (
    *({"indirect": False}, {"indirect": True}) * 3,
    {"announce": False},
    {"announce": False, "indirect": True},
)
_GROUPS: tuple[Mapping[str, object], ...] = (
    *_WAYS,
    *({"count": count, "indirect": indirect} for count in (2, 3, 4) for indirect in (False, True)),
)
_OTHERS = (
    *(Step("needs_notification"),) * 3,
    Step("enable_notification"),
    Step("disable_notification"),
    Step("set_interrupts", {"enabled": False}),
    Step("set_interrupts", {"enabled": True}),
    Step("publish_and_kick"),
    Step("take_used"),
    *(Step("save_and_restore"),) * 3,
    Step("undo_pop", {"count": 2}),  # or as many as there are
    Step("undo_pop", {"count": 3}),
    Step("reset"),
    Step("reset_ring"),
    Step("detach_and_attach"),
    Step("detach_and_attach", {"fresh": True}),
)

_DEVICE_OTHERS = (
    Step("set_interrupts", {"enabled": False}),
    Step("set_interrupts", {"enabled": True}),
    Step("wake"),
    Step("reset"),
)


def _offers(sound_ones: int, ways: Sequence[Mapping[str, object]]) -> st.SearchStrategy[Step]:
    """Chains of the driver; to so many sound ones there are three that are hostile."""
    sound = st.builds(
        lambda segments, way: Step("add", {"segments": segments, **way}), _sound(), st.sampled_from(ways)
    )
    links = hostile_chains(*(attack for attack in Attack if attack not in _TABLES))
    # Chosen here: one_of would give each of its alternatives, nested ones too, the same share.
    edges = hostile_chains(Attack.EDGE)  # so many edges, so many ways to come near them
    hostile = (_hostile(links), _hostile(edges), _hostile(hostile_chains(*_TABLES)))
    kinds = (*(sound,) * sound_ones, *hostile)
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


def _hostile(chains: st.SearchStrategy[HostileChain]) -> st.SearchStrategy[Step]:
    return chains.map(lambda chain: Step("add_hostile", {"chain": chain}))


def _wishes() -> st.SearchStrategy[Step]:
    """Interrupts any, none, or at a position close to where the device is; one kind has no meaning."""
    return st.builds(
        lambda kind, ahead: Step("wish", {"kind": kind, "ahead": ahead}),
        st.integers(0, 3),
        st.integers(0, 20),
    )


def _others() -> st.SearchStrategy[Step]:
    """All besides the way of a chain, what breaks the whole ring among it."""
    kinds = (st.sampled_from(_OTHERS), st.sampled_from(_OTHERS), _wishes(), _misbehaviour())
    return st.integers(0, 3).flatmap(kinds.__getitem__)


def _pops() -> st.SearchStrategy[Step]:
    def pop(chains: int, spare: int) -> Step:
        return Step("pop_batch", {"chains": chains, "spare": spare}) if chains > 0 else Step("pop")

    return st.builds(pop, st.integers(-1, 6), st.integers(0, 4))


def _in_turn() -> st.SearchStrategy[tuple[int, ...]]:
    """The oldest chains, one to four; now and then others."""
    return st.integers(0, 9).map(lambda drawn: (0,) * (drawn // 2 + 1) if drawn < 8 else (3, 0, 0))


def _completions(orders: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Step]:
    def complete(kind: int, which: tuple[int, ...], written: int) -> Step:
        if kind < 4:
            return Step("add_used", {"which": which[0] if which else 0, "written": written})
        special = {8: {"failed": True}, 9: {"excess": True}}.get(kind, {})
        return Step("complete_batch", {"which": which, "written": written, **special})

    # Every other one a few bytes, fewer than most chains have room for.
    written = st.integers(0, 0x1000).map(lambda drawn: drawn & 0xF if drawn & 1 else drawn)
    return st.builds(complete, st.integers(0, 9), orders, written)


def _mixed(*parts: tuple[st.SearchStrategy[Step], int]) -> st.SearchStrategy[Step]:
    kinds = [kind for kind, share in parts for _ in range(share)]
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


def _steps() -> st.SearchStrategy[Step]:
    """Mostly the way of a chain: offered, popped, completed."""
    return _mixed((_offers(2, _WAYS), 3), (_pops(), 3), (_completions(_orders()), 2), (_others(), 3))


def driver_scripts(most: int = 20) -> st.SearchStrategy[tuple[Step, ...]]:
    """Whole conversations of driver and device, honest and hostile, for `QueueTrial.perform`.

    Args:
        most: Steps, at most; at least one.
    """
    return st.lists(_steps(), min_size=1, max_size=most).map(tuple)


_ANY = _steps()
# In order it matters how several sound chains are given back.
_FIRST = _mixed((_offers(12, _GROUPS), 4), (_pops(), 4), (_completions(_in_turn()), 1), (_others(), 1))
_THEN = _mixed((_offers(12, _GROUPS), 1), (_pops(), 1), (_completions(_in_turn()), 5), (_others(), 2))


def _next_step(trial: QueueTrial) -> st.SearchStrategy[Step]:
    if not trial.in_order:
        return _ANY
    return _FIRST if trial.in_flight < 2 else _THEN


class _QueueMachine(RuleBasedStateMachine):
    subject: QueueClass
    only_packed: bool | None
    only_in_order: bool | None
    memory_factory: Callable[[], GuestMemory]
    trials = Bundle("trials")

    @initialize(
        target=trials,
        packed=st.booleans(),
        size=st.integers(1, 16),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        in_order=st.integers(0, 3).map(lambda drawn: drawn == 3),  # most defects show without
        start=_starts(),
        at=_ring_places(),
        wish=st.one_of(st.none(), _wishes()),
    )
    def begin(  # noqa: PLR0917 - Hypothesis calls it by keywords
        self,
        packed: bool,
        size: int,
        event_idx: bool,
        indirect: bool,
        in_order: bool,
        start: int,
        at: int,
        wish: Step | None,
    ) -> QueueTrial:
        """A ready queue that has been in use for a while, on both sides."""
        packed = packed if self.only_packed is None else self.only_packed
        in_order = in_order if self.only_in_order is None else self.only_in_order
        self.trial = QueueTrial(
            self.subject,
            size=size if packed else 1 << size.bit_length() - 1,
            event_idx=event_idx,
            indirect=indirect,
            in_order=in_order,
            start=start,
            at=at,
            packed=packed,
            make_memory=self.memory_factory,
        )
        if wish is not None:
            _noted(self.trial, wish)
        return self.trial

    @rule(step=trials.flatmap(_next_step))
    def take(self, step: Step) -> None:
        """One rule: Hypothesis leaves rules out of a run, and a chain needs its whole way."""
        _noted(self.trial, step)


def _device_steps(asked: st.SearchStrategy[Request]) -> st.SearchStrategy[Step]:
    """Mostly the way of a request: asked, kicked, taken back."""
    request = st.builds(
        lambda parts, indirect: Step(
            "request", {"readable": parts[0], "writable": parts[1], "indirect": indirect}
        ),
        asked,
        st.booleans(),
    )
    others = st.sampled_from(_DEVICE_OTHERS)
    way = (*(st.just(Step("kick")),) * 4, *(st.just(Step("take_used")),) * 3)
    kinds = (*(request,) * 5, *way, *(others,) * 3, _hostile(hostile_chains()))
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


class _DeviceMachine(RuleBasedStateMachine):
    subject: Callable[[], Device]
    answer: Answer | None
    keeps_chains: bool
    has_order: bool
    only_packed: bool | None

    @initialize(
        packed=st.booleans(), size=st.integers(1, 16), event_idx=st.booleans(), indirect=st.booleans()
    )
    def begin(self, packed: bool, size: int, event_idx: bool, indirect: bool) -> None:
        """A fresh device on an empty ring."""
        packed = packed if self.only_packed is None else self.only_packed
        self.trial = DeviceTrial(
            self.subject,
            size=size if packed else 1 << size.bit_length() - 1,
            event_idx=event_idx,
            indirect=indirect,
            in_order=self.has_order,
            packed=packed,
            keeps=self.keeps_chains,
            answer=self.answer,
        )
