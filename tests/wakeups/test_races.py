"""ThreadSanitizer sees no race between driver and device, and sees each one that is put there on purpose."""

import sys
from pathlib import Path

import pytest
import sanitize
import stress
from vmm_testhost.pytest_plugin import LONG

SLEEPS = 100_000 if LONG else 1_000
pytestmark = pytest.mark.pure

CASES = [(ring, mode) for ring in stress.RINGS for mode in stress.MODES]
HALF = sorted(point for point, kind in stress.ordering_points().items() if kind != "full")
SCRIPT = Path(__file__).with_name("python_device.py")
PACKAGES = ("virtio-queue", "vmm-memory")


@pytest.fixture(scope="module")
def program():
    """The C driver and a C device, instrumented."""
    return stress.build(thread=True)


@pytest.fixture(scope="module")
def tree():
    """The two packages over their instrumented extensions."""
    with sanitize.staged(sanitize.THREAD, PACKAGES) as path:
        yield path


@pytest.fixture
def python_device(tree):
    """Run the Python device, with flags for the driver."""

    def run(ring, mode, *flags):
        library = stress.build(thread=True, library=True, flags=flags)
        env = sanitize.environment(tree, sanitize.THREAD)
        return stress.run(
            [sys.executable, SCRIPT, "loop", library],
            ring,
            mode,
            sleeps=SLEEPS // 5,
            patience=60_000,
            env=env,
        )

    return run


@pytest.mark.parametrize(("ring", "mode"), CASES)
def test_no_race(program, ring, mode):
    """The core and the driver order all that they share."""
    report = stress.run(program, ring, mode, sleeps=SLEEPS, patience=60_000)
    assert (report.status, report.wrong, report.errors) == (0, "", "")


@pytest.mark.parametrize("point", HALF)
def test_missing_order_is_reported(point):
    """A core whose acquire or release is relaxed has a race, also on x86, where it does no harm."""
    program = stress.build(thread=True, without=point)
    report = stress.run(program, point.partition("-")[0], "event", sleeps=100_000, patience=60_000)
    assert report.status == stress.THREAD_EXIT, report
    assert "WARNING: ThreadSanitizer: data race" in report.errors
    assert "device_run" in report.errors
    assert "driver.c" in report.errors


@pytest.mark.parametrize(("ring", "mode"), CASES)
def test_no_race_in_the_extension(python_device, ring, mode):
    """The same with the device in Python, on the instrumented extension."""
    report = python_device(ring, mode)
    assert (report.status, report.wrong, report.errors) == (0, "", "")


@pytest.mark.parametrize("ring", stress.RINGS)
def test_race_of_the_extension_is_reported(python_device, ring):
    """A driver that announces a request unordered races with the extension, which the report names."""
    report = python_device(ring, "event", "-DDRIVER_SEEDED_RACE")
    assert report.status == stress.THREAD_EXIT, report
    assert "WARNING: ThreadSanitizer: data race" in report.errors
    assert "_core.abi3.so" in report.errors
    assert "driver.c" in report.errors


@pytest.mark.skipif(not LONG, reason="`make test-long`")
@pytest.mark.parametrize("package", PACKAGES)
def test_suite_has_no_race(package, tree):
    """The tests of the package that this machine can run, threads included, pass without a report."""
    outcome = sanitize.run_suite(package, tree, sanitize.THREAD)
    if not outcome.passed or outcome.hung:
        pytest.fail(outcome.output, pytrace=False)
