"""What trials have in common: scripts that shrink."""

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


def test_what_does_not_fail_stays():
    """All steps."""
    trial = Scales(None)
    trial.put(weight=1)
    trial.weigh()
    assert trial.shortened() == trial.steps
