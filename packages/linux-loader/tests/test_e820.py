"""The memory map against an interval model."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import ConfigurationError, E820Entry, E820Type, build_memory_map

GIB = 1 << 30
entries = st.builds(E820Entry, st.integers(0, 150), st.integers(1, 50), st.sampled_from(E820Type))


def paint(table):
    """The type of each address, by brute force."""
    owner = {}
    for e in table:
        for a in range(e.base, e.base + e.size):
            owner[a] = e.type
    return owner


@given(st.lists(entries, max_size=8))
def test_later_entries_win(reserved):
    """Each address has the type of the last range that names it; entries are sorted, disjoint and maximal."""
    ram = [(0, 64), (100, 30)]
    result = build_memory_map(ram, reserved, legacy_hole=False)
    assert paint(result) == paint([*(E820Entry(b, s, E820Type.RAM) for b, s in ram), *reserved])
    for lower, upper in pairwise(result):
        assert lower.base + lower.size <= upper.base
        assert lower.type != upper.type or lower.base + lower.size < upper.base


def test_a_4_gib_guest():
    """RAM is split at the legacy hole and at 3 GiB, and ACPI tables keep their own type."""
    acpi = E820Entry(0xE_0000, 0x1_0000, E820Type.ACPI)
    result = build_memory_map([(0, 3 * GIB), (4 * GIB, GIB)], [acpi])
    assert [(e.base, e.size, e.type.value) for e in result] == [
        (0, 0x9_FC00, 1),
        (0x9_FC00, 0xE_0000 - 0x9_FC00, 2),
        (0xE_0000, 0x1_0000, 3),
        (0xF_0000, 0x1_0000, 2),
        (0x10_0000, 3 * GIB - 0x10_0000, 1),
        (4 * GIB, GIB, 1),
    ]


def test_the_hole_is_no_larger_than_ram():
    """RAM that ends inside the legacy hole is reserved only as far as it goes."""
    assert [(e.base, e.size) for e in build_memory_map([(0, 0xA_0000)])] == [(0, 0x9_FC00), (0x9_FC00, 0x400)]


def test_too_many_entries():
    """A map the zero page cannot hold is refused, not cut."""
    many = [E820Entry(0x20_0000 + i * 0x2000, 0x1000) for i in range(100)]
    with pytest.raises(ConfigurationError, match="203 entries, at most 128; merge some"):
        build_memory_map([(0, GIB)], many)


@pytest.mark.parametrize(("base", "size"), [(0, 0), (-1, 5), (2**64 - 1, 2), (5, -5)])
def test_bad_ranges(base, size):
    """Empty, negative and wrapping ranges are refused."""
    with pytest.raises(ConfigurationError, match="is empty or outside"):
        build_memory_map([(0, GIB)], [E820Entry(base, size)])
    with pytest.raises(ConfigurationError, match="is empty or outside"):
        build_memory_map([(base, size)])
