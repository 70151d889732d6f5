"""Queues of both formats behind an IOMMU: the rings and the buffers are IOVAs."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, DriverError, Queue, Reason, Segment
from virtio_queue.testing import Driver, RingLayout
from vmm_memory import GuestMemoryMmap, IommuMemory, Iotlb, IotlbEntry, Permissions
from vmm_memory.testing import guarded_region

PAGE = 4096
READ, WRITE = Permissions.READ, Permissions.WRITE
RAM = 0x100000


class Pages:
    """An IOMMU that maps IOVA pages to RAM pages, backwards, so that no two go on from one to the next."""

    def __init__(self, count):
        self.pages = {i: (RAM // PAGE + count - 1 - i, READ | WRITE) for i in range(count)}
        self.asked = 0

    def translate(self, iova, size, permissions):
        """One page at a time."""
        self.asked += 1
        frame, rights = self.pages.get(iova // PAGE, (0, Permissions(0)))
        return [IotlbEntry(iova // PAGE * PAGE, PAGE, frame * PAGE, rights)] if permissions in rights else []


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def world(request):
    """(queue, device's memory, driver, IOMMU): the driver writes by IOVA through a view of its own."""
    return make(request.param)


def make(packed, capacity=2048, pages=16):
    """A queue of 8 whose rings lie in IOVA page 0, over a RAM of so many pages."""
    iommu = Pages(pages)
    ram = GuestMemoryMmap([guarded_region(RAM, pages * PAGE)])
    drivers_view = IommuMemory(ram, Pages(pages))
    device = IommuMemory(ram, iommu, iotlb=Iotlb(capacity))
    layout = RingLayout.at(0, 8, packed=packed)
    queue = Queue(8)
    layout.configure(queue)
    return queue, device, Driver(drivers_view, layout), iommu


def serve(queue, device, batch):
    """Answer each chain with its own bytes, upside down; what was broken is completed with none."""
    while queue.pop_batch(device, batch):
        for i, record in enumerate(batch.records()):
            if record[4] == 0:
                chain = batch.chain(i, device)
                data = chain.reader().read(record[5])
                chain.writer().write(data[::-1])
                batch.set_written(i, len(data))
        queue.complete_batch(device, batch)


def test_rings_and_buffers_are_resolved(world):
    """Nothing is translated at first; at the end all is, and no page was asked for twice."""
    queue, device, driver, iommu = world
    batch = ChainBatch(8, 64)
    queue.check(device)
    # Buffers that run over page edges, in pages that nobody has touched yet.
    for page in (3, 5, 7):
        device_side = driver.memory
        device_side.write(page * PAGE - 3, b"abcdef")
        driver.add([Segment(page * PAGE - 3, 6, False), Segment((page + 6) * PAGE - 2, 6, True)])
    serve(queue, device, batch)
    assert sorted(done.written for done in driver.completed()) == [6, 6, 6]
    for page in (3, 5, 7):
        assert driver.memory.read((page + 6) * PAGE - 2, 6) == b"fedcba"
    asked = iommu.asked
    driver.add([Segment(3 * PAGE - 3, 6, False), Segment(9 * PAGE - 2, 6, True)])
    serve(queue, device, batch)
    assert iommu.asked == asked
    assert not queue.enable_notification(device)


def test_what_the_iommu_refuses_is_the_drivers_fault(world):
    """One broken chain among good ones: only it is broken, with the reason, the address and the size."""
    queue, device, driver, iommu = world
    iommu.pages[5] = (*iommu.pages[5][:1], READ)
    del iommu.pages[7]
    heads = [
        driver.add([Segment(3 * PAGE, 4, False)]),
        driver.add([Segment(4 * PAGE, 4, False), Segment(5 * PAGE, 8, True)]),
        driver.add([Segment(6 * PAGE, 4, False)]),
        driver.add([Segment(7 * PAGE - 4, 16, False)]),
        driver.add([Segment(8 * PAGE, 4, True)]),
    ]
    got = {}
    while len(got) < 5:
        batch = ChainBatch(8, 64)
        assert queue.pop_batch(device, batch)
        got |= {record[2]: -record[4] for record in batch.records()}
    assert got == dict(zip(heads, [0, Reason.READ_ONLY, 0, Reason.ADDRESS, 0], strict=True))
    queue.undo_pop(2)
    with pytest.raises(DriverError, match="buffer outside guest memory: 16 bytes at 0x6ffc"):
        queue.pop(device)


def test_rings_that_are_not_translated(world):
    """The queue is unusable as with rings outside memory; once they are mapped it works."""
    queue, device, driver, iommu = world
    driver.add([Segment(3 * PAGE, 4, False)])
    kept = iommu.pages.pop(0)
    for call in (queue.pop, queue.check, queue.enable_notification, queue.needs_notification):
        with pytest.raises(DriverError) as caught:
            call(device)
        assert caught.value.reason is Reason.RING_ADDRESS
    iommu.pages[0] = kept
    assert queue.pop(device).segments[0][0] == 3 * PAGE


def test_write_only_buffers(world):
    """A buffer that may only be written is good for a device that writes, and for no other."""
    queue, device, driver, iommu = world
    iommu.pages[3] = (*iommu.pages[3][:1], WRITE)
    good = driver.add([Segment(3 * PAGE, 4, True)])
    bad = driver.add([Segment(3 * PAGE, 4, False)])
    got = {}
    while len(got) < 2:
        batch = ChainBatch(8, 64)
        assert queue.pop_batch(device, batch)
        got |= {record[2]: -record[4] for record in batch.records()}
    assert got == {good: 0, bad: Reason.ADDRESS}


def test_invalidated_while_in_use(world):
    """The driver moves a page between two requests; no older table is left when the invalidation returns."""
    queue, device, driver, iommu = world
    batch = ChainBatch(8, 64)
    for turn in range(4):
        driver.memory.write(3 * PAGE, bytes([turn]) * 4)
        driver.add([Segment(3 * PAGE, 4, False), Segment(4 * PAGE, 4, True)])
        serve(queue, device, batch)
        assert driver.memory.read(4 * PAGE, 4) == bytes([turn]) * 4
        iommu.pages[3], iommu.pages[9] = iommu.pages[9], iommu.pages[3]
        driver.memory._iommu.pages = dict(iommu.pages)
        gc.collect()
        for memory in (device, driver.memory):
            memory.iotlb.invalidate(3 * PAGE, PAGE, timeout=60)
            memory.iotlb.invalidate(9 * PAGE, PAGE, timeout=60)


@pytest.mark.parametrize("packed", [False, True])
def test_a_chain_that_does_not_fit_the_iotlb(packed):
    """Its translations drive each other out: it becomes a broken chain, and the device goes on."""
    queue, device, driver, _ = make(packed, capacity=3)
    driver.add([Segment(page * PAGE, 4, False) for page in range(3, 10)])
    batch = ChainBatch(8, 64)
    assert queue.pop_batch(device, batch) == 1
    assert -batch.records()[0][4] == Reason.ADDRESS


@given(data=st.data(), packed=st.booleans())
def test_the_same_chains_as_without_an_iommu(data, packed):
    """Random chains over random pages, some unmapped: the twin on the driver's view says which are good."""
    queue, device, driver, iommu = make(packed)
    holes = data.draw(st.sets(st.integers(2, 15), max_size=4))
    for page in holes:
        del iommu.pages[page]
    segment = st.tuples(st.integers(2 * PAGE, 15 * PAGE), st.integers(1, 2 * PAGE))
    wanted = {}
    for chain in data.draw(st.lists(st.lists(segment, min_size=1, max_size=2), min_size=1, max_size=4)):
        head = driver.add([Segment(addr, min(size, 16 * PAGE - addr), False) for addr, size in chain])
        touched = {
            page
            for addr, size in chain
            for page in range(addr // PAGE, (addr + min(size, 16 * PAGE - addr) - 1) // PAGE + 1)
        }
        wanted[head] = 0 if not touched & holes else Reason.ADDRESS
    got = {}
    while True:
        batch = ChainBatch(8, 64)
        if not queue.pop_batch(device, batch):
            break
        got |= {record[2]: -record[4] for record in batch.records()}
    assert got == wanted
