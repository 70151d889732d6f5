"""RAM layouts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_memory import InvalidRegionError
from vmm_memory.arch import aarch64, x86_64

MODULES = (x86_64, aarch64)


@given(pages=st.one_of(st.integers(1, 1 << 21), st.integers(1, 1 << 35)))
@pytest.mark.parametrize("arch", MODULES)
def test_ranges_add_up_in_order(arch, pages):
    """All of the size is placed, in ascending disjoint ranges, each of them within 2^52."""
    ranges = arch.ram_ranges(pages * 4096)
    assert sum(size for _, size in ranges) == pages * 4096
    end = 0
    for base, size in ranges:
        assert base >= end
        assert size > 0
        end = base + size
    assert end <= 1 << 52


def test_x86_hole():
    """RAM ends at 3 GiB and goes on at 4 GiB."""
    gib = 1 << 30
    assert x86_64.ram_ranges(3 * gib) == ((0, 3 * gib),)
    assert x86_64.ram_ranges(3 * gib + 4096) == ((0, 3 * gib), (4 * gib, 4096))
    assert aarch64.ram_ranges(8 * gib) == ((gib, 8 * gib),)


@pytest.mark.parametrize("arch", MODULES)
@pytest.mark.parametrize("size", [0, -4096, 4095, 1 << 60])
def test_impossible_sizes(arch, size):
    """Sizes that are no whole pages or too large are named."""
    with pytest.raises(InvalidRegionError, match="RAM size is"):
        arch.ram_ranges(size)
