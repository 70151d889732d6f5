"""The manager under concurrent swaps."""

import threading

import pytest
from vm_device import BusError, IoManager, RangeNotFoundError, RangeOverlapError
from vm_device.platform import AddressRange, AddressSpace
from vm_device.testing import RamDevice

PIO, MMIO = AddressSpace.PIO, AddressSpace.MMIO


def test_registration_is_all_or_nothing():
    """One taken range among several, in either space, leaves both buses as they were."""
    manager = IoManager()
    manager.register(AddressRange(MMIO, 0x1000, 16), RamDevice(16))
    before = manager.snapshot()
    wanted = [AddressRange(PIO, 0x10, 4), AddressRange(MMIO, 0x1008, 1)]
    with pytest.raises(RangeOverlapError, match=r"mmio 0x1008\.\.0x1008 overlaps mmio 0x1000\.\.0x100f"):
        manager.register(wanted, RamDevice(4))
    assert manager.snapshot() is before
    with pytest.raises(RangeNotFoundError):
        manager.unregister([AddressRange(MMIO, 0x1000, 16), AddressRange(PIO, 0x10, 4)])
    assert manager.snapshot() is before
    manager.unregister(AddressRange(MMIO, 0x1000, 16))
    assert len(manager.mmio) == len(manager.pio) == 0


def test_move():
    """A move keeps the device, may overlap its own old place, and changes nothing when refused."""
    manager, device = IoManager(), RamDevice(16)
    old, new = AddressRange(MMIO, 0x1000, 16), AddressRange(MMIO, 0x1008, 16)
    manager.register(old, device)
    manager.register(AddressRange(MMIO, 0x2000, 16), RamDevice(16))
    manager.move(old, new)
    assert manager.mmio.find(0x1000) is None
    assert manager.mmio.find(0x1017).device is device
    for target, error in (
        (AddressRange(MMIO, 0x2008, 16), RangeOverlapError),
        (AddressRange(PIO, 0, 1), BusError),
    ):
        with pytest.raises(error):
            manager.move(new, target)
    with pytest.raises(RangeNotFoundError):
        manager.move(old, new)
    port = AddressRange(PIO, 5, 1)
    manager.register(port, device)
    manager.move(port, AddressRange(PIO, 6, 1))
    assert manager.pio.find(6).device is device


def test_dispatch_is_total_while_devices_come_and_go():
    """Readers see the old or the new value of each access, never an error or a mixture."""
    manager, stop, failures = IoManager(), threading.Event(), []
    places = [AddressRange(MMIO, 0x1000 + 0x10 * n, 16) for n in range(4)]
    ports = [AddressRange(PIO, 0x100 + 0x10 * n, 16) for n in range(4)]
    ram = RamDevice(16)
    ram.data[:] = b"\x5a" * 16

    def vcpu():
        reader = manager.reader()
        while not stop.is_set():
            for n in range(4):
                values = {reader.mmio_read(0x1000 + 0x10 * n, 8), reader.pio_read(0x100 + 0x10 * n, 4)}
                if not values <= {0x5A5A5A5A5A5A5A5A, 2**64 - 1, 0x5A5A5A5A, 2**32 - 1}:
                    failures.append(values)
                reader.mmio_write(0x1000 + 0x10 * n, 2, 0x5A5A)
                reader.pio_write(0x100 + 0x10 * n, 2, 0x5A5A)
        reader.close()

    threads = [threading.Thread(target=vcpu) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        for place, port in zip(places, ports, strict=True):
            manager.register([place, port], ram)
        for place, port in zip(places, ports, strict=True):
            manager.unregister([place, port])
            assert manager.grace(10.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_grace_waits_for_an_access_that_holds_the_old_snapshot():
    """The grace point is not reached while a reader is inside the removed device, and is once it has left."""
    manager, inside, leave = IoManager(), threading.Event(), threading.Event()

    class Slow(RamDevice):
        def read(self, offset, size):
            inside.set()
            leave.wait(60)
            return 7

    place = AddressRange(MMIO, 0, 8)
    manager.register(place, Slow(8))
    result = []
    thread = threading.Thread(target=lambda: result.append(manager.reader("cpu0").mmio_read(0, 1)))
    thread.start()
    assert inside.wait(60)
    manager.unregister(place)
    assert not manager.grace(0.01)
    leave.set()
    assert manager.grace(10.0)
    thread.join()
    assert result == [7]
    assert manager.mmio.read(0, 1) == 0xFF


def test_a_device_may_remove_itself():
    """The grace point does not wait for the caller's own access."""
    manager, place = IoManager(), AddressRange(PIO, 0x80, 1)
    reached = []

    class Suicidal(RamDevice):
        def write(self, offset, size, value):
            manager.unregister(place)
            reached.append(manager.grace(5.0))

    manager.register(place, Suicidal(1))
    manager.reader().pio_write(0x80, 1, 1)
    assert reached == [True]


def test_a_failing_access_ends():
    """A device that raises leaves its reader idle, so that the grace point stays reachable from elsewhere."""
    manager = IoManager()

    class Broken(RamDevice):
        def read(self, offset, size):
            raise ZeroDivisionError

    manager.register([AddressRange(PIO, 0, 1), AddressRange(MMIO, 0, 1)], Broken(1))

    def access(reader):
        for read in (reader.pio_read, reader.mmio_read):
            with pytest.raises(ZeroDivisionError):
                read(0, 1)

    thread = threading.Thread(target=access, args=(manager.reader(),))
    thread.start()
    thread.join()
    assert manager.grace(0.0)
