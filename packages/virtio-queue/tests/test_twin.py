"""The twin needs nothing but the protocol of guest memory."""

from virtio_queue import ChainBatch, Queue, VirtQueue
from virtio_queue.testing import Driver, RingLayout, TwinQueue
from vmm_memory.testing import ByteArrayMemory


def test_works_without_an_access_map():
    """Memory that is only a bytearray will do."""
    mem = ByteArrayMemory([(0x1000, 0x3000)])
    layout = RingLayout.at(0x1000, 8)
    queue = TwinQueue(8)
    layout.configure(queue, event_idx=True, indirect=True)
    driver = Driver(mem, layout, event_idx=True, indirect=True, arena=(0x2000, 0x1000))
    driver.request([b"ping"], [4], indirect=True)
    batch = ChainBatch(8, 8)
    assert queue.pop_batch(mem, batch) == 1
    chain = batch.chain(0, mem)
    chain.writer().write(chain.reader().read_all()[::-1])
    batch.set_written(0, 4)
    assert queue.complete_batch(mem, batch) is True
    assert [done.data for done in driver.completed()] == [(b"gnip",)]


def test_same_interface():
    """Every public name of one is a name of the other, and the protocol promises no more."""
    names = {name for name in dir(Queue) if not name.startswith("_")}
    twin = {name for name in dir(TwinQueue(1)) if not name.startswith("_")}
    promised = {name for name in dir(VirtQueue) if not name.startswith("_")} | set(VirtQueue.__annotations__)
    assert names == twin
    assert promised <= names
