"""The list of writes."""

import pytest
from linux_loader import GuestRange, PlacementError
from linux_loader._plan import Write, apply, ordered
from linux_loader.testing import RecordingMemory


def test_order_and_overlap():
    """Empty writes go, the rest is sorted, overlap is refused with both names."""
    a, b = Write.of("a", 0x2000, b"aa"), Write.of("b", 0x1000, b"bb")
    assert [w.what for w in ordered([a, b, Write.of("none", 0x2000, b"")])] == ["b", "a"]
    with pytest.raises(PlacementError, match=r"0x2001..0x2002 overlaps the a at 0x2000..0x2002"):
        ordered([a, Write.of("c", 0x2001, b"c")])


def test_apply():
    """Data is copied, a missing buffer means zeros."""
    memory = RecordingMemory(fill=0xEE)
    apply(memory, [Write.of("a", 0xFFF, b"ab"), Write("zero", GuestRange(0x2000, (1 << 20) + 5), None)])
    assert memory.read(0xFFE, 4) == b"\xeeab\xee"
    assert memory.read(0x2000, (1 << 20) + 6) == bytes((1 << 20) + 5) + b"\xee"
