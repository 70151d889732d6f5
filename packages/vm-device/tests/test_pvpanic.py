"""The pvpanic device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import Pvpanic, PvpanicEvent


def test_it_tells_what_it_knows():
    """A read of the port has the three bits of the specification, and no other."""
    assert Pvpanic(lambda _: None).read(0, 1) == 0b111


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (1, [PvpanicEvent.PANICKED]),
        (2, [PvpanicEvent.CRASH_LOADED]),
        (4, [PvpanicEvent.SHUTDOWN]),
        (3, [PvpanicEvent.PANICKED | PvpanicEvent.CRASH_LOADED]),
        (0, []),
        (0xF8, []),
        (0xF9, [PvpanicEvent.PANICKED]),
    ],
)
def test_known_bits_are_reported(value, reported):
    """Only bits that the device knows count; a write of none says nothing."""
    seen = []
    Pvpanic(seen.append).write(0, 1, value)
    assert seen == reported


@given(st.integers(0, 7), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))
def test_any_access_is_answered(offset, size, value):
    """Whatever a guest does, the answer fits the access and at most one event comes of it."""
    seen = []
    device = Pvpanic(seen.append)
    device.write(offset, size, value % 2 ** (8 * size))
    assert 0 <= device.read(offset, size) < 2 ** (8 * size)
    assert len(seen) == (offset == 0 and value & 7 != 0)


def test_its_place_is_that_of_the_specification():
    """Port 0x505, announced as QEMU0001: what Linux' pvpanic-mmio binds to."""
    node = Pvpanic.describe()
    assert (node.hid, node.ranges[0].base, node.ranges[0].size) == ("QEMU0001", 0x505, 1)
