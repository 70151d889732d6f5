"""Fixtures shared by the tests of this package."""

import os

import pytest


@pytest.fixture
def eventfd():
    """Yield a non-blocking eventfd."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)
