"""Devices that come and go while a guest runs, on the real /dev/kvm."""

import time

import attrs
import pytest
from virtio_devices import DiskImage
from vm_device import VmDeviceError
from vm_device.platform import AddressRange, AddressSpace, DeviceNode
from vmm_reference import DiskConfig, MemoryConfig, VmConfig, Vmm

pytestmark = pytest.mark.kvm

PORT = 0x510


@attrs.define
class Ports:
    """Counts what reaches its two ports."""

    name: str = "ports"
    base: int = PORT
    writes: int = 0

    def read(self, offset, size):
        return 0x5A

    def write(self, offset, size, value):
        self.writes += 1

    def describe(self):
        return DeviceNode(self.name, "ports", (AddressRange(AddressSpace.PIO, self.base, 2),))


@pytest.fixture
def vmm(kernel):
    """A machine whose guest writes to PORT for ever."""
    with Vmm(VmConfig(kernel("ports"), memory=MemoryConfig(16 << 20))) as vmm:
        yield vmm


def wait_for(condition):
    """Wait until the guest has got so far."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_a_device_joins_and_leaves_a_running_machine(vmm):
    """Writes reach it from the moment it is added, and none after it was removed."""
    device, machine = Ports(), vmm.machine
    vmm.boot()
    wait_for(lambda: machine.vcpus[0].fd.stats().native > 10)
    assert device.writes == 0

    machine.add_device(device)
    wait_for(lambda: device.writes > 10)
    machine.remove_device("ports")
    last, native = device.writes, machine.vcpus[0].fd.stats().native
    wait_for(lambda: machine.vcpus[0].fd.stats().native > native + 10)

    assert device.writes == last
    assert "ports" not in machine.tree
    machine.add_device(device)  # its place and id are free again


def test_a_device_in_a_taken_place_changes_nothing(vmm):
    """An overlap or a doubled id is refused; the devices that were there still answer."""
    machine = vmm.machine
    first = Ports()
    machine.add_device(first)
    before = machine.platform

    with pytest.raises(VmDeviceError):
        machine.add_device(Ports("other", PORT + 1))
    with pytest.raises(VmDeviceError):
        machine.add_device(Ports("ports", 0x520))
    with pytest.raises(VmDeviceError):
        machine.remove_device("nobody")
    with pytest.raises(VmDeviceError, match=r"rng0.*belongs to the machine"):
        machine.remove_device("rng0")

    assert machine.platform == before
    assert "other" not in machine.tree
    assert machine.io.pio.read(PORT, 1) == 0x5A
    assert not machine.allocator.pio.release_owner("other")


def test_virtio_keeps_clear_of_a_callers_device(kernel):
    """A caller's device at the first place of the MMIO hole moves the virtio devices, not the other way."""

    class Page(Ports):
        def describe(self):
            return DeviceNode("page", "page", (AddressRange(AddressSpace.MMIO, 0xD000_0000, 0x1000),))

    config = VmConfig(kernel("poweroff"), memory=MemoryConfig(16 << 20))
    with Vmm(config, devices=[Page()]) as vmm:
        assert vmm.machine.platform.device("page").ranges[0].base == 0xD000_0000
        assert vmm.machine.virtio[0].range.base == 0xD000_1000


def test_a_machine_that_cannot_be_built_lets_go_of_its_disks(kernel, tmp_path):
    """Where the devices given leave no place for the disk, its lock is free again: a second try can work."""

    class Hole(Ports):
        def describe(self):
            return DeviceNode("hole", "hole", (AddressRange(AddressSpace.MMIO, 0xD000_0000, 0x1000_0000),))

    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    config = VmConfig(kernel("poweroff"), memory=MemoryConfig(16 << 20), disks=[DiskConfig(disk)])
    with pytest.raises(VmDeviceError):
        Vmm(config, devices=[Hole()])
    DiskImage(disk).close()
