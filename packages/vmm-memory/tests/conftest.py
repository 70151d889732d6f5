"""Fixtures shared by the tests of vmm_memory."""

import pytest
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

PAGE = 4096


@pytest.fixture
def two_regions():
    """Two adjacent tracked regions of four pages each at 0x10000, and one of a page after a hole."""
    return GuestMemoryMmap(
        [
            guarded_region(0x10000, 4 * PAGE),
            guarded_region(0x10000 + 4 * PAGE, 4 * PAGE),
            guarded_region(0x40000, PAGE),
        ]
    )
