"""Fixtures: guest memory of two adjacent guarded regions, and a device behind virtio-mmio with its driver."""

import contextlib

import pytest
from virtio_devices import DiskImage, VirtioBlk, VirtioMmio
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

RAM = 0x10_0000
HALF = 0x8_0000
AREA = (0x1_0000, 0xC_0000)  # crosses the seam between the two regions
MMIO = 0xD000_0000


class Rig:
    """One device, its transport, and a driver that has not begun yet."""

    def __init__(self, device, memory, *, timeout=10.0, **options):
        self.device = device
        self.memory = memory
        self.line = LineProbe()
        self.mmio = VirtioMmio(device, base=MMIO, interrupt=self.line, memory=memory, **options)
        self.driver = MmioDriver(self.mmio, memory, self.line, area=AREA, timeout=timeout)

    def blk(self, **options):
        """Initialise the device and return a block driver on it."""
        self.driver.initialise(**options)
        return BlkDriver(self.driver)


@pytest.fixture
def memory():
    """1 MiB from address 0 in two regions, PROT_NONE pages at both ends of each."""
    return GuestMemoryMmap([guarded_region(0, HALF), guarded_region(HALF, HALF)])


@pytest.fixture
def rig(memory):
    """Make rigs that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(device, **options):
            made = Rig(device, memory, **options)
            stack.callback(made.mmio.close)
            return made

        yield make


@pytest.fixture
def image(tmp_path):
    """A raw image of 64 sectors with known content; a callable that gives path and content."""

    def make(size=64 * 512, name="disk.img"):
        path = tmp_path / name
        content = bytes(i // 512 * 7 + i & 0xFF for i in range(size))
        path.write_bytes(content)
        return path, content

    return make


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request):
    """Each data path in turn."""
    return request.param


@pytest.fixture
def disk(rig, image, native):
    """Make a rig around a disk, with each data path."""

    def make(size=64 * 512, *, read_only=False, serial=None, path=None, timeout=10.0, **options):
        path = path or image(size)[0]
        device = VirtioBlk(
            "disk0", DiskImage(path, read_only=read_only), serial=serial, native=native, **options
        )
        return rig(device, timeout=timeout)

    return make
