"""Value types."""

import attrs
import pytest
from vmm_memory import FileOffset, InvalidRegionError, MemoryOrder


def test_orders_are_the_compilers():
    """The values of __ATOMIC_*, which C asserts as well."""
    assert [(order.name, order.value) for order in MemoryOrder] == [
        ("RELAXED", 0),
        ("ACQUIRE", 2),
        ("RELEASE", 3),
        ("SEQ_CST", 5),
    ]


def test_file_offset_is_a_checked_value():
    """Frozen, compared by value, no negative numbers."""
    assert FileOffset(3) == FileOffset(3, 0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        FileOffset(3).fd = 4
    with pytest.raises(InvalidRegionError, match=r"FileOffset\.fd is -1, must be 0 or more"):
        FileOffset(-1)
