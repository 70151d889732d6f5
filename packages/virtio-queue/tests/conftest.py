"""Fixtures: one queue of each implementation, and a ring on guarded memory."""

import pytest
from virtio_queue import ChainBatch, Queue
from virtio_queue.testing import Driver, RawRings, RingLayout, TwinQueue
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

BASE, ROOM = 0x1_0000, 0x4000
DATA = BASE + 0x2000
NEXT, WRITE, INDIRECT = 1, 2, 4


@pytest.fixture(params=[Queue, TwinQueue])
def queue_class(request):
    """Each implementation in turn."""
    return request.param


class Bench:
    """A queue of four entries with raw access to its rings, on memory whose ends are guarded."""

    BASE, ROOM, DATA = BASE, ROOM, DATA

    def __init__(self, queue_class, size=4, *, event_idx=False, indirect=True):
        self.mem = GuestMemoryMmap([guarded_region(BASE, ROOM)])
        self.layout = RingLayout.at(BASE, size)
        self.queue = queue_class(size)
        self.layout.configure(self.queue, event_idx=event_idx, indirect=indirect)
        self.raw = RawRings(self.mem, self.layout)
        self.batch = ChainBatch(64, max(size, 64))
        self.announced = 0

    def announce(self, *heads):
        """Make heads available."""
        for head in heads:
            self.raw.write_available(self.announced, head)
            self.announced = (self.announced + 1) & 0xFFFF
        self.raw.set_avail_idx(self.announced)

    def descriptors(self, *rows, at=0):
        """Write (address, length, flags, next) rows from entry `at` on."""
        for index, row in enumerate(rows, at):
            self.raw.write_descriptor(index, *row)

    def driver(self, **options):
        """An honest driver on the same ring."""
        return Driver(self.mem, self.layout, arena=(DATA, 0x2000), **options)


@pytest.fixture
def bench(queue_class):
    """A ring of four entries for each implementation."""
    return Bench(queue_class)


@pytest.fixture
def make_bench(queue_class):
    """A ring with chosen size and features."""
    return lambda size=4, **options: Bench(queue_class, size, **options)
