"""No wake-up and no chain is lost while driver and device hammer a ring and sleep whenever they may.

`make test-long` has 10^6 sleeps of each side in every case, and shows that the stress has teeth: a core
without one of its full fences loses a wake-up.
"""

import sys
from pathlib import Path

import pytest
import stress
from virtio_queue.testing.notifications import Ring, Traffic
from virtio_queue.testing.ordering import Model, explore
from vmm_testhost.pytest_plugin import LONG

SLEEPS = 1_000_000 if LONG else 5_000
pytestmark = pytest.mark.pure

CASES = [(ring, mode) for ring in stress.RINGS for mode in stress.MODES]
SIZES = (2, 8, 64) if LONG else (8,)
FULL = sorted(point for point, kind in stress.ordering_points().items() if kind == "full")
KINDS = {"avail": "acquire", "used": "release", "decide": "full", "enable": "full"}


def test_the_core_and_the_model_have_the_same_ordering_points():
    """Those that the comments in the C source name are those of the programs that are explored."""
    modelled = set()
    for ring in Ring:
        modelled |= explore(Traffic(ring, event_idx=True).scenario(), Model.SC).points
    device = {point for point in modelled if not point.startswith("driver-")}
    assert stress.ordering_points() == {point: KINDS[point.rpartition("-")[2]] for point in device}


@pytest.fixture(scope="module")
def program():
    """The driver and a device in C."""
    return stress.build()


@pytest.fixture(scope="module")
def python_device():
    """The command of the driver in C and a device in Python of a kind."""
    script = Path(__file__).with_name("python_device.py")
    return lambda kind: [sys.executable, script, kind, stress.build(library=True)]


def check(report, sleeps):
    """Everything went well, and often."""
    assert (report.status, report.wrong) == (0, ""), report
    assert min(report.driver_slept, report.device_slept) >= sleeps
    assert report.sent > sleeps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("ring", "mode"), CASES)
def test_c_device(program, ring, mode, size):
    """The C core, called from C."""
    check(stress.run(program, ring, mode, sleeps=SLEEPS, size=size), SLEEPS)


@pytest.mark.skipif("packed" not in stress.RINGS, reason="the core has no packed rings")
@pytest.mark.parametrize("size", [3, 13])
@pytest.mark.parametrize("mode", stress.MODES)
def test_packed_ring_of_any_size(program, mode, size):
    """The end of the ring falls into a request, and at another place of it in each lap."""
    check(stress.run(program, "packed", mode, sleeps=SLEEPS // 5, size=size, seed=2), SLEEPS // 5)


@pytest.mark.parametrize(("ring", "mode"), CASES)
def test_python_device(python_device, ring, mode):
    """The C core through `Queue`, the device's loop in Python."""
    sleeps = SLEEPS if LONG else SLEEPS // 5
    check(stress.run(python_device("loop"), ring, mode, sleeps=sleeps, patience=30_000), sleeps)


@pytest.mark.parametrize("kind", ["chains", "batches"])
@pytest.mark.parametrize(("ring", "mode"), CASES)
def test_server_of_every_device(python_device, ring, mode, kind):
    """The loop that serves the queues of all virtio devices, on its event loop."""
    sleeps = SLEEPS // 10
    check(stress.run(python_device(kind), ring, mode, sleeps=sleeps, patience=30_000), sleeps)


@pytest.mark.parametrize("mode", stress.MODES)
def test_lost_wakeup_is_noticed(mode):
    """A device that does not look again once it asked for kicks is found out at once."""
    program = stress.build(flags=["-DVQ_MUTANT=5", "-DDEVICE_DAWDLES"])
    report = stress.run(program, "split", mode, sleeps=1_000_000, patience=1000)
    assert report.status == 1, report
    assert "no interrupt" in report.wrong or "no kick" in report.wrong


@pytest.mark.skipif(not LONG, reason="`make test-long`: it takes luck, and up to minutes on a busy machine")
@pytest.mark.parametrize("mode", stress.MODES)
@pytest.mark.parametrize("point", FULL)
def test_every_full_fence_is_needed(point, mode):
    """Without it a store waits in the processor's buffer while the other side looks, and both go to sleep."""
    program = stress.build(without=point)
    ring = point.partition("-")[0]
    reports = (
        stress.run(program, ring, mode, sleeps=SLEEPS, size=size, seed=seed, patience=3000)
        for seed in range(10)
        for size in (8, 2)
    )
    assert any(report.status == 1 for report in reports)


def test_unknown_point():
    """A name that the source does not have, or behind which nothing can be weakened, is an error."""
    with pytest.raises(KeyError, match="no ordering point split-nothing"):
        stress.build(without="split-nothing")
