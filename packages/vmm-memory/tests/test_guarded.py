"""Guard pages at both ends of a region."""

import subprocess
import sys

import pytest
from vmm_memory import GuestMemoryMmap, GuestRegionMmap
from vmm_memory.testing import guarded_region

PAGE = 4096

TOUCH = """
import ctypes, sys
from vmm_memory.testing import guarded_region
region = guarded_region(0x1000, 2 * 4096)
at = region.host_address + int(sys.argv[1])
ctypes.c_uint8.from_address(at).value = 1
print("survived")
"""


@pytest.mark.parametrize(
    ("offset", "survives"), [(0, True), (2 * PAGE - 1, True), (-1, False), (2 * PAGE, False)]
)
def test_first_stray_byte_faults(offset, survives):
    """Inside works; one byte below or above kills the process with SIGSEGV."""
    done = subprocess.run([sys.executable, "-c", TOUCH, str(offset)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == ((0, b"survived\n") if survives else (-11, b""))


def neighbours(region):
    """The permissions of the mappings right below and right above a region."""
    below = above = None
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, permissions = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            below = permissions if low < region.host_address <= high else below
            above = permissions if low <= region.host_address + region.size < high else above
    return below, above


@pytest.mark.parametrize("make", [GuestRegionMmap.memfd, GuestRegionMmap.anonymous, guarded_region])
@pytest.mark.parametrize("size", [PAGE, 3 << 20])
def test_every_region_lies_between_guards(make, size):
    """Not only test regions: whatever the kind and size."""
    region = make(0x1000, size)
    assert neighbours(region) == ("---p", "---p")
    GuestMemoryMmap([region]).fill(0x1000, size, 0xFF)
