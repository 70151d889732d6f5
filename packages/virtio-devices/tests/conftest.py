"""Fixtures: guest memory of two adjacent guarded regions, and a device behind virtio-mmio with its driver."""

import contextlib

import pytest
from virtio_devices import DiskImage, RingOptions, VirtioBlk, VirtioMmio
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

RAM = 0x10_0000
HALF = 0x8_0000
AREA = (0x1_0000, 0xC_0000)  # crosses the seam between the two regions
MMIO = 0xD000_0000
PACKED = RingOptions(packed=True)


def break_ring(queue):
    """What no driver may do: announce more than there is, or (packed) a list without an end."""
    size = queue.layout.size
    if not queue.layout.packed:
        queue.raw.set_avail_idx((queue.raw.avail_idx() + size + 1) & 0xFFFF)
        return
    start, wrap = queue.next_avail & 0x7FFF, bool(queue.next_avail & 0x8000)
    for step in reversed(range(size)):  # the first element, which announces them all, last
        available = 0x80 if wrap == (start + step < size) else 0x8000
        queue.raw.write_descriptor((start + step) % size, queue.layout.desc_table, 16, 0, 1 | available)


class Rig:
    """One device, its transport, and a driver that has not begun yet."""

    def __init__(self, device, memory, *, timeout=60.0, packed=None, rings=PACKED, **options):
        self.device = device
        self.memory = memory
        self.line = LineProbe()
        self.mmio = VirtioMmio(device, base=MMIO, interrupt=self.line, memory=memory, rings=rings, **options)
        self.driver = MmioDriver(self.mmio, memory, self.line, area=AREA, timeout=timeout, packed=packed)

    def blk(self, **options):
        """Initialise the device and return a block driver on it."""
        self.driver.initialise(**options)
        return BlkDriver(self.driver)


class Scripted:
    """A device without a configuration space whose single handler is given by the test."""

    id, device_id, features = "scripted", 99, 0

    def __init__(self, handler, *, batches=False, gate=None, size=256):
        self.queue_sizes = (size,)
        self.handler, self.batches, self.gate = handler, batches, gate
        self.server = self.context = None

    def read_config(self, offset, size):
        return b""

    def write_config(self, offset, data):
        raise ValueError("no such field")

    def activate(self, context):
        self.context = context
        serve = context.serve_batches if self.batches else context.serve_chains
        self.server = serve(0, self.handler, gate=self.gate)

    def reset(self):
        self.server = self.context = None

    def describe(self):
        return {}

    def state(self):
        return {}

    def restore(self, state):
        pass

    def close(self):
        pass


@pytest.fixture
def scripted():
    """Make devices that do nothing but what the test says."""
    return Scripted


@pytest.fixture
def memory():
    """1 MiB from address 0 in two regions, PROT_NONE pages at both ends of each."""
    return GuestMemoryMmap([guarded_region(0, HALF), guarded_region(HALF, HALF)])


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request):
    """Each ring format in turn."""
    return request.param


@pytest.fixture
def ring_breaker():
    """What breaks a queue of either format."""
    return break_ring


@pytest.fixture
def rig(memory, packed):
    """Make rigs that are closed at the end, whose drivers take one ring format or the other."""
    with contextlib.ExitStack() as stack:

        def make(device, **options):
            made = Rig(device, memory, **{"packed": packed, **options})
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

    def make(size=64 * 512, *, read_only=False, serial=None, path=None, timeout=60.0, **options):
        path = path or image(size)[0]
        device = VirtioBlk(
            "disk0", DiskImage(path, read_only=read_only), serial=serial, native=native, **options
        )
        return rig(device, timeout=timeout)

    return make
