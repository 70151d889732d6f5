"""What the C core refuses by itself, called as an outside program may: wrongly, with odd registers."""

import errno

import pytest
from virtio_queue import ChainBatch, DriverError, Queue, Reason, Segment
from virtio_queue._core import ffi, lib
from virtio_queue.testing import Driver, PackedRings, RingLayout
from vmm_memory import GuestMemoryMmap

BASE, ROOM, SIZE = 0x1000, 0x2000, 4
DATA, AVAIL = BASE + 0x1000, 1 << 7


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def world(request):
    """(queue, its raw struct, memory, its map, driver) with three chains available."""
    memory = GuestMemoryMmap.from_ranges([(BASE, ROOM)])
    layout = RingLayout.at(BASE, SIZE, packed=request.param)
    driver = Driver(memory, layout)
    for number in range(3):
        driver.add([Segment(DATA + 16 * number, 8, True)])
    queue = Queue(SIZE)
    layout.configure(queue)
    view = memory.access_map()
    yield queue, queue._vq, memory, view.map, driver
    assert view.address  # kept alive until here


def test_no_map_is_another_abi(world):
    """NULL in place of a map, in each call."""
    _queue, raw, memory, _map, _driver = world
    batch = ChainBatch(2, SIZE)
    used = memory.read(BASE, ROOM)
    assert lib.vq_check(ffi.NULL, raw) == -errno.EPROTO
    assert lib.vq_pop_batch(ffi.NULL, raw, batch.raw) == -errno.EPROTO
    assert lib.vq_complete_batch(ffi.NULL, raw, batch.raw) == -errno.EPROTO
    assert lib.vq_add_used(ffi.NULL, raw, 0, 0) == -errno.EPROTO
    assert lib.vq_needs_notification(ffi.NULL, raw) == -errno.EPROTO
    assert lib.vq_enable_notification(ffi.NULL, raw) == -errno.EPROTO
    assert lib.vq_disable_notification(ffi.NULL, raw) == -errno.EPROTO
    assert lib.vq_gather(ffi.NULL, batch.raw, ffi.NULL, 0) == -errno.EPROTO
    assert lib.vq_scatter(ffi.NULL, batch.raw, ffi.NULL, 0, ffi.NULL) == -errno.EPROTO
    assert memory.read(BASE, ROOM) == used


@pytest.mark.parametrize("field", ["nchains", "nsegs"])
def test_a_batch_that_says_it_holds_more_than_it_can(world, field):
    """The counts are compared with the arrays' lengths before anything is looked at."""
    _queue, raw, _memory, vmm_map, _driver = world
    batch = ChainBatch(2, SIZE)
    setattr(batch.raw, field, 5)
    assert lib.vq_complete_batch(vmm_map, raw, batch.raw) == -errno.EPROTO
    assert lib.vq_gather(vmm_map, batch.raw, ffi.NULL, 0) == -errno.EPROTO


@pytest.mark.parametrize(("first", "count"), [(2, 1), (1, 1), (0, 2)])
def test_a_chain_whose_segments_are_not_there(world, first, count):
    """Its place in the array is checked, not believed; nothing is copied."""
    _queue, _raw, memory, vmm_map, _driver = world
    batch = ChainBatch(2, SIZE)
    batch.append(0, [(DATA, 4, True)])
    batch.raw.chains[0].first_seg, batch.raw.chains[0].nsegs = first, count
    into = ffi.new("uint8_t[]", b"unchanged")
    assert lib.vq_gather(vmm_map, batch.raw, into, len(into)) == -errno.EINVAL
    assert lib.vq_scatter(vmm_map, batch.raw, into, 4, ffi.NULL) == -errno.EINVAL
    assert (ffi.string(into), memory.read(DATA, 8)) == (b"unchanged", bytes(8))


@pytest.mark.parametrize("sizes", [(9, 0), (1, 4), (8, 1)])
def test_shares_that_do_not_fit(world, sizes):
    """More than a chain takes, or all together than there is: nothing is written."""
    _queue, _raw, memory, vmm_map, _driver = world
    batch = ChainBatch(2, SIZE)
    batch.append(0, [(DATA, 8, True)])
    batch.append(1, [(DATA + 16, 8, True)])
    shares = ffi.new("uint32_t[]", sizes)
    size = 8 if sizes[0] == 8 else 4
    source = ffi.new("uint8_t[]", b"x" * size)
    assert lib.vq_scatter(vmm_map, batch.raw, source, size, shares) == -errno.EINVAL
    assert memory.read(DATA, 32) == bytes(32)


def test_a_chain_that_claims_more_than_its_segments_have(world):
    """Bytes go where segments are, and nowhere else."""
    _queue, _raw, memory, vmm_map, _driver = world
    batch = ChainBatch(2, SIZE)
    batch.append(0, [(DATA, 0, True), (DATA, 3, False), (DATA + 4, 2, True)])
    batch.raw.chains[0].writable = 9
    source = ffi.new("uint8_t[]", b"123456789")
    assert lib.vq_scatter(vmm_map, batch.raw, source, 9, ffi.NULL) == 9
    assert memory.read(DATA, 16) == bytes(4) + b"12" + bytes(10)


def test_more_is_given_back_than_there_is(world):
    """The core counts for itself."""
    queue, raw, memory, _map, _driver = world
    queue.pop(memory)
    assert lib.virtq_undo_pop(raw, 2) == -errno.EINVAL
    assert (queue.in_flight, lib.virtq_undo_pop(raw, 1), queue.in_flight) == (1, 0, 0)


def test_in_order_needs_its_table(world):
    """The flag without the table of pops is the owner's mistake, not a crash."""
    queue, raw, memory, vmm_map, _driver = world
    batch = ChainBatch(2, SIZE)
    queue.pop_batch(memory, batch)
    raw.flags |= lib.VIRTQ_IN_ORDER
    kept, raw.order = raw.order, ffi.NULL
    assert lib.vq_complete_batch(vmm_map, raw, batch.raw) == -errno.EINVAL
    assert lib.vq_add_used(vmm_map, raw, batch.records()[0][2], 0) == -errno.EINVAL
    raw.order = kept
    raw.flags &= ~lib.VIRTQ_IN_ORDER
    assert lib.vq_complete_batch(vmm_map, raw, batch.raw) == 1


def test_no_queue_is_larger_than_the_format(world):
    """A maximum that the owner set too high does not help a driver."""
    queue, raw, memory, _map, _driver = world
    raw.max_size, queue.size = 0xFFFF, 0x8001 if queue.packed else 0x8000
    if not queue.packed:
        assert queue.is_valid(memory) is False  # no memory for so large a ring
        return
    with pytest.raises(DriverError) as caught:
        queue.check(memory)
    assert (caught.value.reason, caught.value.value) == (Reason.RING_SIZE, 0x8001)


def offer_packed(queue, memory, rows):
    """Raw elements from slot 0 on."""
    raw = PackedRings(memory, RingLayout.at(BASE, SIZE, packed=True))
    for slot, (addr, length, head, flags) in enumerate(rows):
        raw.write_descriptor(slot, addr, length, head, flags)


def packed_queue():
    """A packed queue on empty memory."""
    memory = GuestMemoryMmap.from_ranges([(BASE, ROOM)])
    queue = Queue(SIZE)
    RingLayout.at(BASE, SIZE, packed=True).configure(queue)
    return queue, memory


def test_fewer_ids_than_the_driver_uses():
    """An owner may expect few buffer ids: another breaks the queue, first in a batch or later."""
    for heads in ((5, 1), (1, 5)):
        queue, memory = packed_queue()
        queue._vq.ids = 4
        offer_packed(queue, memory, [(DATA, 1, head, AVAIL) for head in heads])
        batch, taken = ChainBatch(4, SIZE), heads.index(5)
        if taken:
            assert queue.pop_batch(memory, batch) == taken
        with pytest.raises(DriverError, match="5") as caught:
            queue.pop_batch(memory, batch)
        assert (caught.value.reason, caught.value.value, caught.value.limit) == (Reason.BUFFER_ID, 5, 3)
        assert queue.in_flight == taken
        one = ChainBatch(1, 1)
        one.append(5, [(DATA, 1, False)])
        if taken:
            with pytest.raises(ValueError, match="5"):
                queue.complete_batch(memory, one)


def test_a_chain_twice_in_one_batch():
    """Neither is completed, and both can be afterwards."""
    queue, memory = packed_queue()
    offer_packed(queue, memory, [(DATA, 1, head, AVAIL) for head in (0, 1)])
    assert (queue.pop(memory).head, queue.pop(memory).head) == (0, 1)
    batch = ChainBatch(2, 2)
    batch.append(1, [(DATA, 1, False)])
    batch.append(1, [(DATA, 1, False)])
    before = memory.read(BASE, ROOM)
    with pytest.raises(ValueError, match="1"):
        queue.complete_batch(memory, batch)
    assert (memory.read(BASE, ROOM), queue.in_flight) == (before, 2)
    queue.add_used(memory, 1, 0)
    queue.add_used(memory, 0, 0)
    assert queue.in_flight == 0


def test_more_written_than_writable():
    """In a packed ring too: refused as a whole."""
    queue, memory = packed_queue()
    offer_packed(queue, memory, [(DATA, 1, head, AVAIL | 2) for head in (0, 1)])
    batch = ChainBatch(2, SIZE)
    queue.pop_batch(memory, batch)
    batch.raw.chains[1].written = 2
    with pytest.raises(ValueError, match="chain 1: 2 bytes written, 1 writable"):
        queue.complete_batch(memory, batch)
    assert queue.in_flight == 2


def test_a_reused_id_is_not_given_back():
    """Of the last two pops one is complete, its id in flight again: the numbers of the pops tell."""
    queue, memory = packed_queue()
    offer_packed(queue, memory, [(DATA, 1, head, AVAIL) for head in (1, 0, 0)])
    assert (queue.pop(memory).head, queue.pop(memory).head) == (1, 0)
    queue.add_used(memory, 0, 0)
    offer_packed(queue, memory, [(DATA, 1, head, AVAIL) for head in (1, 0, 0)])
    assert queue.pop(memory).head == 0
    before = queue.state()
    with pytest.raises(ValueError, match="of the last 2 some were completed"):
        queue.undo_pop(2)
    assert queue.state() == before
    queue.undo_pop()
    assert queue.in_flight == 1


def test_a_ring_that_shrank_behind_its_used_position():
    """Next to use lies behind the end, next to pop before it: the queue waits for a reset."""
    queue, memory = packed_queue()
    offer_packed(queue, memory, [(DATA, 1, head, AVAIL) for head in range(4)])
    for _ in range(3):
        queue.add_used(memory, queue.pop(memory).head, 0)
    assert queue.pop(memory).head == 3
    queue.size = 2
    with pytest.raises(DriverError) as caught:
        queue.check(memory)
    assert (caught.value.reason, caught.value.value, caught.value.limit) == (Reason.RING_POSITION, 3, 2)
