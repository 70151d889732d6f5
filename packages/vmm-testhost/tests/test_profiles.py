"""The Hypothesis profiles (which of them is loaded is tested with the plugin)."""

import os
import subprocess
import sys

import pytest
from hypothesis import settings
from vmm_testhost import _profiles


def test_unknown_profile_is_refused(monkeypatch):
    """A misspelt profile is an error that lists the real ones, and none is loaded."""
    before = settings().max_examples
    monkeypatch.setenv("VMM_HYPOTHESIS_PROFILE", "fast")
    with pytest.raises(ValueError, match="VMM_HYPOTHESIS_PROFILE='fast': not one of dev, ci, long"):
        _profiles.register()
    assert settings().max_examples == before
    assert settings.get_profile("ci").derandomize


@pytest.mark.parametrize(("profile", "said"), [("long", "True"), ("ci", "False"), ("", "False")])
def test_who_counts_asks_the_same_variable(profile, said):
    """One variable decides on examples and on everything else that a long run does more of."""
    script = "from vmm_testhost.pytest_plugin import LONG; print(LONG)"
    environment = os.environ | {"VMM_HYPOTHESIS_PROFILE": profile}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{said}\n", done.stderr
