"""The strategies make what they promise."""

import importlib
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_memory.testing.strategies import TOP, addresses_near, layouts, ranges_near


@given(layout=layouts())
def test_layouts_are_sorted_disjoint_pages(layout):
    """Whole pages in order, none beyond 2^64."""
    end = 0
    for base, size in layout:
        assert base >= end
        assert base % 4096 == size % 4096 == 0 < size
        end = base + size
    assert end <= TOP


@given(data=st.data(), layout=layouts())
def test_ranges_begin_near_the_layout(data, layout):
    """Every address is in a region or within 17 bytes of an edge."""
    addr = data.draw(addresses_near(layout))
    assert 0 <= addr < TOP
    assert any(base - 17 <= addr <= base + size + 17 for base, size in layout)
    _, size = data.draw(ranges_near(layout, max_size=100))
    assert 0 <= size <= 100


def test_without_hypothesis_they_say_what_to_install(monkeypatch):
    """As it is where only the package is installed."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "vmm_memory.testing.strategies")
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'vmm-memory[testing]'")):
        importlib.import_module("vmm_memory.testing.strategies")
