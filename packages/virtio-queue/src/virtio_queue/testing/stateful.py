"""Hypothesis state machines that look for trouble: in any implementation of `VirtQueue`, in any device."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue.testing import strategies
from virtio_queue.testing._device_trial import Answer, Device, DeviceTrial
from virtio_queue.testing._hostile import HostileChain
from virtio_queue.testing._queue_trial import QueueClass, QueueTrial
from virtio_queue.testing._record import Step, Trial
from virtio_queue.testing._trial_memory import BORDER, DATA, RINGS, trial_memory
from virtio_queue.testing.strategies import (
    Attack,
    Request,
    hostile_chains,
    hostile_layouts,
    indices,
    mutations,
)

__all__ = ("device_machine", "queue_machine")

_P = ParamSpec("_P")
_R = TypeVar("_R")


def queue_machine(
    queue_class: QueueClass,
    *,
    packed: bool | None = None,
    make_memory: Callable[[], GuestMemory] = trial_memory,
) -> type[RuleBasedStateMachine]:
    """A state machine that compares an implementation with the twin, step by step: see `QueueTrial`.

    The driver adds direct and indirect chains, kicks, takes used chains back, suppresses interrupts, and may
    turn hostile in every way that `Attack` names. A failure is printed as a program that does it again.

    Args:
        queue_class: The implementation.
        packed: Only this format; None for both.
        make_memory: Makes zeroed guest memory laid out like that of `trial_memory`; called twice a run.

    Returns:
        The class; its `TestCase` attribute is what pytest collects.
    """

    class QueueMachine(_QueueMachine):
        subject = queue_class
        only_packed = packed
        memory_factory = staticmethod(make_memory)

    return QueueMachine


def device_machine(
    make_device: Callable[[], Device],
    *,
    requests: st.SearchStrategy[Request] | None = None,
    answer: Answer | None = None,
    keeps: bool = False,
    packed: bool | None = None,
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

    Returns:
        The class; its `TestCase` attribute is what pytest collects.
    """
    made, wanted = make_device, answer

    class DeviceMachine(_DeviceMachine):
        subject = staticmethod(made)
        answer = None if wanted is None else staticmethod(wanted)
        keeps_chains = keeps
        only_packed = packed

        @rule(asked=strategies.requests() if requests is None else requests, indirect=st.booleans())
        def request(self, asked: Request, indirect: bool) -> None:
            self._take(self.trial.request, *asked, indirect=indirect)

    return DeviceMachine


def _noted(trial: Trial, step: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Take a step; when it fails, have Hypothesis print the script."""
    try:
        return step(*args, **kwargs)
    except Exception:
        hypothesis.note(trial.script())
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
        return tuple(Segment(DATA + 0x100 * n, length >> 2 * n, n >= readable) for n in range(count))

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
        hostile_layouts().map(lambda layout: Step("set_registers", {"layout": layout})),
    )


class _QueueMachine(RuleBasedStateMachine):
    subject: QueueClass
    only_packed: bool | None
    memory_factory: Callable[[], GuestMemory]

    @initialize(
        packed=st.booleans(),
        size=st.integers(1, 16),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        start=_starts(),
        at=_ring_places(),
    )
    def begin(  # noqa: PLR0917 - Hypothesis calls it by keywords
        self, packed: bool, size: int, event_idx: bool, indirect: bool, start: int, at: int
    ) -> None:
        """A ready queue that has been in use for a while, on both sides."""
        packed = packed if self.only_packed is None else self.only_packed
        self.trial = QueueTrial(
            self.subject,
            size=size if packed else 1 << size.bit_length() - 1,
            event_idx=event_idx,
            indirect=indirect,
            start=start,
            at=at,
            packed=packed,
            make_memory=self.memory_factory,
        )

    def _take(self, step: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return _noted(self.trial, step, *args, **kwargs)

    @rule(segments=_sound(), indirect=st.booleans(), announce=st.booleans())
    def add(self, segments: tuple[Segment, ...], indirect: bool, announce: bool) -> None:
        self._take(self.trial.add, segments, indirect=indirect, announce=announce)

    @rule(chain=hostile_chains(Attack.INDEX, Attack.CYCLE, Attack.ORDER))
    def add_bad_links(self, chain: HostileChain) -> None:
        self._take(self.trial.add_hostile, chain)

    @rule(chain=hostile_chains(Attack.EDGE, Attack.TOTAL, Attack.ANYTHING))
    def add_bad_buffers(self, chain: HostileChain) -> None:
        self._take(self.trial.add_hostile, chain)

    @rule(chain=hostile_chains(Attack.TABLE, Attack.LONG_TABLE, Attack.NESTED, Attack.COMBINED))
    def add_bad_table(self, chain: HostileChain) -> None:
        self._take(self.trial.add_hostile, chain)

    @rule(step=_misbehaviour())
    def misbehave(self, step: Step) -> None:
        self._take(self.trial.perform, step)

    @rule()
    def publish_and_kick(self) -> None:
        self._take(self.trial.publish_and_kick)

    @precondition(lambda self: self.trial.honest)
    @rule()
    def take_used(self) -> None:
        self._take(self.trial.take_used)

    @rule(enabled=st.booleans())
    def set_interrupts(self, enabled: bool) -> None:
        self._take(self.trial.set_interrupts, enabled=enabled)

    @rule()
    def pop(self) -> None:
        self._take(self.trial.pop)

    @rule(chains=st.integers(1, 6), spare=st.integers(0, 4))
    def pop_batch(self, chains: int, spare: int) -> None:
        self._take(self.trial.pop_batch, chains, spare)

    @rule(which=st.integers(0, 3), written=st.integers(0, 0x1000))
    def add_used(self, which: int, written: int) -> None:
        self._take(self.trial.add_used, which, written)

    @rule(which=_orders(), written=st.integers(0, 0x1000), excess=st.integers(0, 9).map(lambda n: n == 9))
    def complete_batch(self, which: tuple[int, ...], written: int, excess: bool) -> None:
        self._take(self.trial.complete_batch, which, written, excess=excess)

    @precondition(lambda self: self.trial.undoable())
    @rule(count=st.integers(1, 4))
    def undo_pop(self, count: int) -> None:
        self._take(self.trial.undo_pop, count)

    @rule()
    def needs_notification(self) -> None:
        self._take(self.trial.needs_notification)

    @rule(wanted=st.booleans())
    def set_notification(self, wanted: bool) -> None:
        self._take(self.trial.enable_notification if wanted else self.trial.disable_notification)

    @rule()
    def save_and_restore(self) -> None:
        self._take(self.trial.save_and_restore)

    @rule()
    def reset(self) -> None:
        self._take(self.trial.reset)


class _DeviceMachine(RuleBasedStateMachine):
    subject: Callable[[], Device]
    answer: Answer | None
    keeps_chains: bool
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
            packed=packed,
            keeps=self.keeps_chains,
            answer=self.answer,
        )

    def _take(self, step: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return _noted(self.trial, step, *args, **kwargs)

    @rule()
    def kick(self) -> None:
        self._take(self.trial.kick)

    @rule()
    def wake(self) -> None:
        self._take(self.trial.wake)

    @rule()
    def take_used(self) -> None:
        self._take(self.trial.take_used)

    @rule(enabled=st.booleans())
    def set_interrupts(self, enabled: bool) -> None:
        self._take(self.trial.set_interrupts, enabled=enabled)

    @rule(chain=hostile_chains())
    def add_hostile(self, chain: HostileChain) -> None:
        self._take(self.trial.add_hostile, chain)

    @rule()
    def reset(self) -> None:
        self._take(self.trial.reset)
