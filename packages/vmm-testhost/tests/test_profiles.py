"""The Hypothesis profiles (which of them is loaded is tested with the plugin)."""

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
