"""Bus snapshots against a plain list of ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import AccessSizeError, Bus, BusError, RangeNotFoundError, RangeOverlapError
from vm_device.platform import AddressRange, AddressSpace
from vm_device.testing import RamDevice

SIZES = st.sampled_from([1, 2, 4, 8])


class Echo:
    """Remembers accesses; reads give more bits than asked for."""

    def __init__(self, name=0):
        self.name = name
        self.seen = []

    def read(self, offset, size):
        """Note and answer with the name in the low byte."""
        self.seen.append(("r", offset, size))
        return 0xABCD_EF01_2345_6700_00 | self.name

    def write(self, offset, size, value):
        """Note."""
        self.seen.append(("w", offset, size, value))


def mmio(base, size):
    """Shorthand."""
    return AddressRange(AddressSpace.MMIO, base, size)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=12),
    st.lists(st.tuples(st.integers(0, 360), SIZES, st.integers(0, 2**64 - 1)), max_size=30),
)
def test_dispatch_is_total_and_agrees_with_a_list_of_ranges(ranges, accesses):
    """Registration refuses exactly the overlaps; an access arrives iff it lies wholly inside one range."""
    bus, model = Bus(AddressSpace.MMIO), []
    for base, size in ranges:
        device = Echo(len(model))
        if any(base < b + s and b < base + size for b, s, _ in model):
            with pytest.raises(RangeOverlapError):
                bus.with_device(mmio(base, size), device)
        else:
            bus = bus.with_device(mmio(base, size), device)
            model.append((base, size, device))
    for address, size, value in accesses:
        owner = next(((b, d) for b, s, d in model if b <= address and address + size <= b + s), None)
        before = bus.unclaimed
        read = bus.read(address, size)
        bus.write(address, size, value)
        ones = (1 << 8 * size) - 1
        if owner:
            offset = address - owner[0]
            assert owner[1].seen[-2:] == [("r", offset, size), ("w", offset, size, value & ones)]
            assert read == (0xABCD_EF01_2345_6700_00 | owner[1].name) & ones
            assert bus.unclaimed == before
        else:
            assert read == ones
            assert (bus.unclaimed.reads, bus.unclaimed.writes) == (before.reads + 1, before.writes + 1)
            assert bus.unclaimed.last_address == address
        at = next((d for b, s, d in model if b <= address < b + s), None)
        found = bus.find(address)
        assert (found and found.device) is at


def test_snapshots_are_immutable():
    """Deriving never changes the source, and failures derive nothing."""
    empty = Bus(AddressSpace.MMIO)
    one = empty.with_device(mmio(0x10, 4), RamDevice(4))
    assert (len(empty), len(one), len(one.without(mmio(0x10, 4)))) == (0, 1, 0)
    with pytest.raises(RangeOverlapError):
        one.with_devices([(mmio(0, 4), RamDevice(4)), (mmio(0x13, 1), RamDevice(1))])
    assert [entry.range for entry in one] == [mmio(0x10, 4)]


def test_refusals():
    """Wrong space, inexact range and odd sizes are the caller's mistakes."""
    bus = Bus(AddressSpace.PIO)
    with pytest.raises(BusError, match="not in the PIO space"):
        bus.with_device(mmio(0, 1), RamDevice(1))
    with pytest.raises(RangeNotFoundError, match=r"pio 0x0\.\.0x1 is not registered"):
        bus.without(AddressRange(AddressSpace.PIO, 0, 2))
    for address, size in ((0, 0), (0, 3), (0, 16), (-1, 1), (0, -1)):
        with pytest.raises(AccessSizeError, match=f"size={size}"):
            bus.read(address, size)
        with pytest.raises(AccessSizeError, match=f"size={size}"):
            bus.write(address, size, 0)


def test_the_very_top_of_both_spaces():
    """Ranges may end at the last address; an access that would pass it is unclaimed."""
    top = 2**64 - 4
    bus = Bus(AddressSpace.MMIO).with_device(mmio(top, 4), ram := RamDevice(4))
    bus.write(top, 4, 0x01020304)
    assert ram.data == b"\x04\x03\x02\x01"
    assert bus.read(top + 3, 1) == 1
    assert bus.read(top + 3, 2) == 0xFFFF
    whole = Bus(AddressSpace.PIO).with_device(AddressRange(AddressSpace.PIO, 0, 0x10000), RamDevice(0x10000))
    assert whole.read(0xFFFF, 1) == 0
    assert whole.read(0xFFFF, 2) == 0xFFFF


def test_device_errors_pass_through():
    """A bus neither hides nor translates what a device raises."""

    class Broken(RamDevice):
        def read(self, offset, size):
            raise ZeroDivisionError("bug")

    bus = Bus(AddressSpace.MMIO).with_device(mmio(0, 4), Broken(4))
    with pytest.raises(ZeroDivisionError):
        bus.read(0, 1)
