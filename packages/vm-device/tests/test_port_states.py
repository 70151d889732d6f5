"""The ports that report: what they say to guest and host is the same after a restore."""

from collections.abc import Callable

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import (
    BootTimer,
    BootTimerState,
    DebugConsole,
    DebugConsoleState,
    PostCodes,
    PostCodesState,
    Pvpanic,
    PvpanicEvent,
    PvpanicState,
    SavedStateError,
)

ACCESSES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)),
    max_size=20,
)
EVENTS = st.sampled_from([PvpanicEvent(bits) for bits in range(8)])


@attrs.frozen
class Kind:
    """How a device of one kind is made and made again, with `report` for what it says to the host."""

    make: Callable
    restore: Callable


def _console_out(report):
    def out(data):
        report(data)
        if data < b"\x80":
            raise OSError(28, "No space left on device")

    return out


def _boot_timer(report):
    return {"on_mark": lambda *mark: report(mark), "clock_ns": lambda: 5}


KINDS = [
    Kind(
        lambda report, _: BootTimer(**_boot_timer(report)),
        lambda state, report: BootTimer.from_state(state, **_boot_timer(report)),
    ),
    Kind(
        lambda report, _: DebugConsole(_console_out(report)),
        lambda state, report: DebugConsole.from_state(state, _console_out(report)),
    ),
    Kind(lambda report, _: PostCodes(report), PostCodes.from_state),
    Kind(lambda report, events: Pvpanic(report, events=events), Pvpanic.from_state),
]


def _drive(device, accesses):
    """Do them; the answers to the reads."""
    answers = []
    for is_write, offset, size, value in accesses:
        if is_write:
            device.write(offset, size, value % 2 ** (8 * size))
        else:
            answers.append(device.read(offset, size))
    return answers


@pytest.mark.parametrize("kind", KINDS, ids=["boot-timer", "debug-console", "post-codes", "pvpanic"])
@given(events=EVENTS, before=ACCESSES, after=ACCESSES)
@example(PvpanicEvent.PANICKED, [(True, 0, 1, 65)], [(True, 0, 1, 7), (True, 0, 1, 65), (False, 0, 2, 0)])
def test_round_trip(kind, events, before, after):
    """Whatever was written before: the same state again, and from then on the same answers and reports."""
    first, second = [], []
    device = kind.make(first.append, events)
    _drive(device, before)
    state = device.state()
    again = kind.restore(state, second.append)
    assert again.state() == state
    first.clear()
    assert _drive(again, after) == _drive(device, after)
    assert second == first
    assert again.state() == device.state()


@given(EVENTS)
def test_a_guest_is_told_what_it_was_told(events):
    """A machine that was saved by a VMM with fewer events gets no more by a restore."""
    seen = []
    device = Pvpanic.from_state(PvpanicState(int(events)), seen.append)
    assert device.read(0, 1) == events
    device.write(0, 1, 0xFF)
    assert seen == ([events] if events else [])


def test_losses_are_counted_on():
    """Those of the restored machine are added."""

    def full(data):
        raise OSError(28, "No space left on device")

    device = DebugConsole.from_state(DebugConsoleState(40), full)
    device.write(0, 1, 65)
    assert (device.lost, device.state()) == (41, DebugConsoleState(41))


@pytest.mark.parametrize(
    ("restore", "state", "message"),
    [
        (BootTimer.from_state, BootTimerState(version=2), "version"),
        (PostCodes.from_state, PostCodesState(version=0), "version"),
        (DebugConsole.from_state, DebugConsoleState(0, version=2), "version"),
        (DebugConsole.from_state, DebugConsoleState(-1), "lost"),
        (Pvpanic.from_state, PvpanicState(7, version=2), "version"),
        (Pvpanic.from_state, PvpanicState(8), "events"),
        (Pvpanic.from_state, PvpanicState(-1), "events"),
    ],
)
def test_refusals(restore, state, message):
    """Impossible states, named by the field."""
    with pytest.raises(SavedStateError, match=f"{message}="):
        restore(state, print)
