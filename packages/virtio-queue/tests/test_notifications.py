"""No wake-up is lost and nothing read too early; with any ordering point left out it is."""

import pytest
from virtio_queue.testing._machines import Machine
from virtio_queue.testing.notifications import Ring, Traffic
from virtio_queue.testing.ordering import Model, explore
from vmm_testhost.pytest_plugin import LONG

KINDS = [(ring, event_idx) for ring in Ring for event_idx in (False, True)]
NAMES = [f"{ring.value}-{'event' if event_idx else 'flags'}" for ring, event_idx in KINDS]
# Requests, entries, burst, start: the last two cross 2^16 and, packed, the end of a lap.
SHORT = [(2, 1, 1, 0), (2, 2, 1, 0xFFFF)]
FULL = [*SHORT, (3, 1, 1, 1), (3, 2, 1, 0), (3, 2, 2, 0xFFFE), (4, 2, 2, 1), (3, 3, 2, 2), (4, 4, 4, 3)]
POINTS = ("avail", "used", "kick", "enable")


@pytest.mark.parametrize("shape", FULL if LONG else SHORT, ids=str)
@pytest.mark.parametrize("model", Model)
@pytest.mark.parametrize(("ring", "event_idx"), KINDS, ids=NAMES)
def test_nothing_is_lost(ring, event_idx, model, shape):
    """In every execution the driver gets all its answers, and each side reads what the other wrote."""
    found = explore(Traffic(ring, event_idx, *shape).scenario(), model)
    assert found.violation is None, "\n".join([found.violation, *found.trace])
    assert found.states > 500


@pytest.mark.parametrize(
    "point", ["avail", "used", "decide", "enable", *(f"driver-{name}" for name in POINTS)]
)
@pytest.mark.parametrize(("ring", "event_idx"), KINDS, ids=NAMES)
def test_every_ordering_point_is_needed(ring, event_idx, point):
    """Without it a wake-up gets lost, or somebody reads too early; full fences fail on x86 already."""
    side, _, what = point.rpartition("-")
    name = f"{'driver-' if side else ''}{ring.value}-{what}"
    scenario = Traffic(ring, event_idx).scenario()
    full = what in ("decide", "enable", "kick")
    for model in (Model.TSO, Model.C11) if full else (Model.C11,):
        found = explore(scenario, model, without={name})
        assert name in found.points
        assert found.violation is not None, f"{name} is not needed under {model.value}"
        assert found.violation.startswith("nobody goes on" if full else ("device reads", "driver reads"))


@pytest.mark.parametrize(("ring", "event_idx"), KINDS, ids=NAMES)
def test_points_are_all_tried(ring, event_idx):
    """The list above is the list of the programs."""
    names = {"avail", "used", "decide", "enable"}
    expected = {f"{ring.value}-{name}" for name in names}
    expected |= {f"driver-{ring.value}-{name}" for name in POINTS}
    assert explore(Traffic(ring, event_idx).scenario(), Model.SC).points == expected


def test_sequential_consistency_needs_none_of_them():
    """It is the reordering that they are for: with nothing reordered the protocol stands without any."""
    for ring, event_idx in KINDS:
        scenario = Traffic(ring, event_idx).scenario()
        points = explore(scenario, Model.SC).points
        assert explore(scenario, Model.SC, without=points).violation is None


@pytest.mark.skipif(not LONG, reason="`make test-long`: ten times as many states")
@pytest.mark.parametrize("model", [Model.TSO, Model.C11])
@pytest.mark.parametrize(("ring", "event_idx"), KINDS, ids=NAMES)
def test_nothing_is_lost_in_whichever_order_stores_are_explored(ring, event_idx, model, monkeypatch):
    """The saving of states that the machines make hides nothing here either."""
    monkeypatch.setattr(Machine, "stores_first", False)
    found = explore(Traffic(ring, event_idx).scenario(), model)
    assert found.violation is None, "\n".join(found.trace)
