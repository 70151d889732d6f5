"""What trials have in common: scripts that shrink."""

import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from virtio_queue.testing import Step
from virtio_queue.testing._record import Trial, step


class Scales(Trial):
    """Breaks under five kilograms."""

    _simple_steps = (Step("put", {"weight": 5}), Step("put", {"weight": 1}))

    def __init__(self, subject):
        super().__init__(subject, {})
        self.total = 0

    @step
    def put(self, weight):
        """Add a weight."""
        self.total += weight

    @step
    def weigh(self):
        """Break, perhaps."""
        assert self.total < 5


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        ([5], [5]),
        ([1, 7, 1], [7]),
        ([2, 3], [5]),  # neither can go, but one stands for both
        ([1, 1, 1, 1, 1], [5]),
        ([-1, 3, 1, -2, 4], [5]),
    ],
)
def test_fewer_steps_and_simpler_ones(weights, left):
    """Steps that are not needed go; two that are give way to a simple one."""
    trial = Scales(None)
    for weight in weights:
        trial.put(weight=weight)
    with pytest.raises(AssertionError):
        trial.weigh()
    assert trial.shortened() == [*(Step("put", {"weight": weight}) for weight in left), Step("weigh")]


class Well(Trial):
    """Breaks under two buckets."""

    _simple_steps = (Step("draw", {"buckets": 4}),)

    def __init__(self, subject):
        super().__init__(subject, {})
        self.water = self.drawn = 0

    @step
    def rain(self):
        """One bucket more."""
        self.water += 1

    @step
    def draw(self, buckets):
        """As many as there are."""
        buckets = min(buckets, self.water)
        self.water, self.drawn = self.water - buckets, self.drawn + buckets
        assert self.drawn < 2


def test_the_simple_step_comes_where_the_later_one_was():
    """What it stands for needs what came between the two."""
    trial = Well(None)
    trial.rain()
    trial.draw(1)
    trial.rain()
    with pytest.raises(AssertionError):
        trial.draw(1)
    assert trial.shortened() == [Step("rain"), Step("rain"), Step("draw", {"buckets": 4})]


def test_what_does_not_fail_stays():
    """All steps."""
    trial = Scales(None)
    trial.put(weight=1)
    trial.weigh()
    assert trial.shortened() == trial.steps


class Wheel(Trial):
    """Goes round for ever when it is pushed twice."""

    def __init__(self, subject):
        super().__init__(subject, {})
        self.pushes = 0

    @step
    def push(self, by):
        """Turn."""
        self.pushes += by
        while self.pushes >= 2:
            pass


@pytest.mark.skipif(
    "libtsan" in os.environ.get("LD_PRELOAD", ""),
    reason="ThreadSanitizer keeps signals back until the next call into libc, and there is none",
)
def test_a_step_without_an_end_is_a_failure():
    """It is ended, found, and shortened as any other; the timer and its handler are as before."""
    before = signal.getsignal(signal.SIGVTALRM)
    trial = Wheel(None)
    trial.push(0)
    trial.push(1)
    with pytest.raises(AssertionError, match=r"^push took more than 2 s of processor time"):
        trial.push(1)
    assert [taken.arguments["by"] for taken in trial.shortened()] == [1, 1]
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


class Collector(Trial):
    """Notes whether garbage would be collected while it works."""

    def __init__(self, subject):
        super().__init__(subject, {})
        self.seen = []

    @step
    def look(self):
        """See."""
        self.seen.append(gc.isenabled())


@pytest.mark.parametrize("before", [True, False])
def test_no_collection_is_taken_for_the_step(before):
    """It may take longer than the limit, in a run that holds much; afterwards all is as it was."""
    trial, was = Collector(None), gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        trial.look()
        assert (trial.seen, gc.isenabled()) == ([False], before)
    finally:
        (gc.enable if was else gc.disable)()


def test_a_thread_is_left_alone():
    """Signals are the main thread's: a trial elsewhere just runs."""
    with ThreadPoolExecutor(1) as pool:
        trial = Scales(None)
        pool.submit(trial.put, 3).result()
    assert trial.total == 3
