"""The map of guest memory is replaced while devices serve: each round takes the newest, none stumbles."""

import contextlib
import gc
import os
import threading
import time
import weakref

import pytest
from virtio_devices import DiskImage, RingOptions, VirtioBlk, VirtioMmio
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver
from vmm_memory import FileOffset, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap

RAM, HALF, ELSEWHERE = 0x10_0000, 0x8_0000, 0x200_0000
AREA = (0x1_0000, 0xC_0000)  # crosses the seam of the maps in two regions


def echo(memory, chain):
    """Answer with what was sent, backwards."""
    answer = chain.reader().read_all()[::-1]
    chain.writer().write(answer)
    return len(answer)


def echo_batch(memory, batch):
    """The same to a whole batch."""
    for index in range(len(batch)):
        batch.set_written(index, echo(memory, batch.chain(index, memory)))
    return True


class Ram:
    """1 MiB of guest memory that can be mapped again and again, in several shapes."""

    SHAPES = (((0, RAM),), ((0, HALF), (HALF, HALF)), ((0, RAM), (ELSEWHERE, HALF)))

    def __init__(self, stack):
        self._fd = os.memfd_create("live")
        stack.callback(os.close, self._fd)
        os.ftruncate(self._fd, RAM)
        self.given = []
        self.own = GuestMemoryMmap([self._region(0, RAM)])
        self.holder = GuestMemoryAtomic(self.mapped(0))

    def _region(self, base, size):
        return GuestRegionMmap.from_file(base, size, FileOffset(self._fd, base % RAM), shared=True)

    def mapped(self, shape):
        """A new map of the same bytes."""
        regions = [self._region(base, size) for base, size in self.SHAPES[shape % len(self.SHAPES)]]
        self.given += [weakref.ref(region) for region in regions]
        return GuestMemoryMmap(regions)

    @contextlib.contextmanager
    def ever_changing(self):
        """Other maps of the same memory, one after the other, until the block ends."""
        done, count = threading.Event(), [0]

        def swap():
            while not done.is_set():
                count[0] += 1
                self.holder.replace(self.mapped(count[0]))
                time.sleep(0)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            yield count
        finally:
            done.set()
            thread.join()

    def all_but_the_newest_are_gone(self):
        """Whether nobody holds a region of an older map."""
        gc.collect()
        held = {region for region in (reference() for reference in self.given) if region is not None}
        return held == set(self.holder.memory())


class Live:
    """A device on memory that changes; its driver has a mapping of its own."""

    def __init__(self, stack, ram, device, *, packed):
        self.ram, line = ram, LineProbe()
        mmio = VirtioMmio(
            device, base=0xD000_0000, interrupt=line, memory=ram.holder, rings=RingOptions(packed=True)
        )
        stack.callback(mmio.close)
        self.driver = MmioDriver(mmio, ram.own, line, area=AREA, packed=packed)
        self.driver.initialise()


@pytest.fixture
def live(packed):
    """A maker of devices that work already."""
    with contextlib.ExitStack() as stack:
        yield lambda device: Live(stack, Ram(stack), device, packed=packed)


@pytest.fixture(params=[False, True], ids=["chains", "batches"])
def echoing(live, scripted, request):
    """A device that echoes, chain by chain or in batches."""
    return live(scripted(echo_batch if request.param else echo, batches=request.param, size=64))


def wait_until(holds):
    """Until it is so, for a minute at most."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def test_requests_while_the_map_is_replaced(echoing):
    """Each is answered from memory as it is, and old maps are unmapped once nobody is in them."""
    with echoing.ram.ever_changing() as count:
        number = 0
        while number < 200 or count[0] < 100:
            number += 1
            parts = [bytes([number % 256, part]) * (1 + number % 40) for part in range(1 + number % 3)]
            sent = b"".join(parts)
            done = echoing.driver.request(parts, [len(sent) // 2, len(sent)])
            assert b"".join(done.data) == sent[::-1]
    assert not echoing.driver.needs_reset
    wait_until(echoing.ram.all_but_the_newest_are_gone)


def test_a_disk_while_the_map_is_replaced(live, tmp_path, native):
    """The data path in C, and the one in Python: what is written is read back."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(64 * 512))
    made = live(VirtioBlk("disk0", DiskImage(path), native=native))
    disk = BlkDriver(made.driver)
    with made.ram.ever_changing() as count:
        number = 0
        while number < 100 or count[0] < 100:
            number += 1
            data = bytes([number % 256]) * 1536
            assert disk.write(number % 61, data) == 0
            assert disk.read(number % 61, 3) == (0, data)
    assert not made.driver.needs_reset
    wait_until(made.ram.all_but_the_newest_are_gone)


def test_memory_that_is_taken_from_under_a_device(echoing):
    """A ring that is mapped no more ends in a request for a reset; with the memory back all is well again."""
    assert echoing.driver.request([b"abc"], [3]).data == (b"cba",)
    echoing.ram.holder.replace(GuestMemoryMmap())
    echoing.driver.queues[0].request([b"lost"], [4])
    echoing.driver.kick(always=True)
    echoing.driver.wait_for_reset_request()
    echoing.ram.holder.replace(echoing.ram.mapped(1))
    echoing.driver.initialise()
    assert echoing.driver.request([b"abcd"], [4]).data == (b"dcba",)
