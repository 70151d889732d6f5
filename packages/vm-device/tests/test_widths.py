"""Accesses of the right width, and counted ones."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import AccessCounts, AccessWidths, Bus, IoManager, PlatformError
from vm_device.platform import AddressRange, AddressSpace
from vm_device.testing import RamDevice

WIDTHS = st.sampled_from([1, 2, 4, 8])


class Seen(RamDevice):
    """RAM that remembers how it was accessed."""

    def __init__(self, size):
        super().__init__(size)
        self.log = []

    def read(self, offset, size):
        self.log.append((offset, size))
        return super().read(offset, size)

    def write(self, offset, size, value):
        self.log.append((offset, size))
        super().write(offset, size, value)


@given(WIDTHS, WIDTHS, WIDTHS, st.integers(0, 24), st.integers(0, 2**64 - 1))
def test_what_a_device_gets(one, other, size, offset, value):
    """Only its widths, aligned, in ascending order; the same bytes as without, or nothing at all."""
    smallest, largest = sorted((one, other))
    device = Seen(32)
    ram = device.data
    front = AccessWidths(device, smallest=smallest, largest=largest)
    front.write(offset, size, value & (1 << 8 * size) - 1)
    answer = front.read(offset, size)
    if size < smallest or offset % min(size, largest):
        assert (device.log, front.refused, answer) == ([], 2, (1 << 8 * size) - 1)
        return
    assert all(smallest <= width <= largest and place % width == 0 for place, width in device.log)
    half = device.log[: len(device.log) // 2]
    assert device.log == half * 2
    assert half == sorted(half)
    assert ram == bytes(offset) + (value & (1 << 8 * size) - 1).to_bytes(size, "little") + bytes(
        32 - offset - size
    )
    assert answer == value & (1 << 8 * size) - 1


@pytest.mark.parametrize(("smallest", "largest"), [(3, 8), (1, 16), (4, 2), (0, 8)])
def test_impossible_widths(smallest, largest):
    """Refused when the device is put on the bus."""
    with pytest.raises(PlatformError, match="est="):
        AccessWidths(RamDevice(8), smallest=smallest, largest=largest)


def test_counts_by_registration():
    """Each range by itself; they outlive other registrations, and end with their own."""
    here, there = AddressRange(AddressSpace.PIO, 0x10, 8), AddressRange(AddressSpace.PIO, 0x20, 8)
    io = IoManager(counting=True)
    ram = RamDevice(8)
    io.register(here, ram)
    io.pio.write(0x10, 1, 1)
    before = io.pio
    io.register(there, RamDevice(8))
    before.read(0x11, 1)
    io.pio.read(0x20, 4)
    io.pio.read(0x30, 4)
    assert io.pio.counts() == {here: AccessCounts(1, 1), there: AccessCounts(1, 0)}
    assert io.pio.find(0x10).device is ram
    io.unregister(here)
    assert io.pio.counts() == {there: AccessCounts(1, 0)}
    assert io.mmio.counts() == {}
    assert Bus(AddressSpace.PIO).with_device(here, ram).counts() == {}


def test_counts_are_exact_under_threads():
    """Four threads, one device."""
    bus = Bus(AddressSpace.MMIO, counting=True).with_device(
        where := AddressRange(AddressSpace.MMIO, 0, 8), RamDevice(8)
    )

    def work():
        for _ in range(2000):
            bus.read(0, 4)
            bus.write(4, 4, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bus.counts() == {where: AccessCounts(8000, 8000)}
