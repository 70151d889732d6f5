"""Fixtures of the vmm-testhost tests."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder for the functions under test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VMM_TESTHOST_CACHE", str(folder))
    return folder
