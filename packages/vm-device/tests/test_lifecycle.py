"""The lifecycle table."""

import threading

import pytest
from vm_device import Lifecycle, LifecycleError, LifecycleState

S = LifecycleState
LEGAL = {
    (S.CREATED, S.RUNNING),
    (S.CREATED, S.PAUSED),
    (S.CREATED, S.CLOSED),
    (S.RUNNING, S.PAUSED),
    (S.PAUSED, S.RUNNING),
    (S.PAUSED, S.DRAINED),
    (S.PAUSED, S.CLOSED),
    (S.DRAINED, S.PAUSED),
    (S.DRAINED, S.CLOSED),
}
PATHS = {
    S.CREATED: [],
    S.RUNNING: [S.RUNNING],
    S.PAUSED: [S.PAUSED],
    S.DRAINED: [S.PAUSED, S.DRAINED],
    S.CLOSED: [S.CLOSED],
}


@pytest.mark.parametrize("target", S)
@pytest.mark.parametrize("start", S)
def test_every_pair(start, target):
    """Legal steps change the state, illegal ones raise and change nothing."""
    life = Lifecycle("vm0")
    for step in PATHS[start]:
        life.to(step)
    assert life.can(target) == ((start, target) in LEGAL)
    if (start, target) in LEGAL:
        life.to(target)
        assert life.state is target
    else:
        with pytest.raises(LifecycleError, match=f"vm0 is {start.value}; cannot go to {target.value}"):
            life.to(target)
        assert life.state is start


def test_require_and_wait():
    """Require names what was wanted; waiters wake on the change."""
    life = Lifecycle("vm0")
    with pytest.raises(LifecycleError, match="vm0 is created; cannot go to running or paused"):
        life.require(S.RUNNING, S.PAUSED)
    life.require(S.CREATED)
    assert not life.wait_for(S.RUNNING, timeout=0.0)
    threading.Timer(0.01, life.to, [S.RUNNING]).start()
    assert life.wait_for(S.RUNNING)
