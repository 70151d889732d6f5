"""The interface of a queue, on both implementations."""

import struct

import attrs
import pytest
from virtio_queue import ChainBatch, DriverError, Reason, Segment
from virtio_queue.testing import Driver, RawRings, RingLayout
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region


@pytest.mark.parametrize("size", [0, 32769, 65536, -4])
def test_max_size_must_be_a_queue_size(queue_class, size):
    """A maximum that no queue can have is refused with the value."""
    with pytest.raises(ValueError, match=f"max_size is {size}, must be from 1 to 32768"):
        queue_class(size)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 65536), ("size", -1), ("desc_table", 1 << 64), ("avail_ring", -2), ("used_ring", 1 << 64)],
)
def test_registers_refuse_what_they_cannot_hold(queue_class, name, value):
    """Nothing is clipped: a value wider than the register raises and leaves it unchanged."""
    queue = queue_class(8)
    before = queue.state()
    with pytest.raises(ValueError, match=f"{name} is {value:#x}, must be from 0 to"):
        setattr(queue, name, value)
    assert queue.state() == before


@pytest.mark.parametrize(
    ("change", "reason", "position", "message"),
    [
        ({"ready": False}, Reason.NOT_READY, 0, "before the driver made it ready"),
        ({"size": 0}, Reason.RING_SIZE, 0, "bad queue size: 0, must be from 1 to 4"),
        ({"size": 3}, Reason.RING_SIZE, 0, "bad queue size: 3"),
        ({"size": 8}, Reason.RING_SIZE, 0, "bad queue size: 8"),
        ({"desc_table": 0x10008}, Reason.RING_ALIGNMENT, 0, "descriptor area misaligned: 0x10008"),
        ({"avail_ring": 0x10041}, Reason.RING_ALIGNMENT, 1, "driver area misaligned: 0x10041"),
        (
            {"used_ring": 0x10052},
            Reason.RING_ALIGNMENT,
            2,
            "device area misaligned: 0x10052, must be a mul",
        ),
        (
            {"desc_table": 0x13FD0},
            Reason.RING_ADDRESS,
            0,
            "descriptor area outside guest memory: 64 bytes at 0x13fd0",
        ),
        ({"avail_ring": 0x13FF4}, Reason.RING_ADDRESS, 1, "driver area outside guest memory: 14 bytes"),
        ({"used_ring": 0x13FDC}, Reason.RING_ADDRESS, 2, "device area outside guest memory: 38 bytes"),
        ({"used_ring": (1 << 64) - 4}, Reason.RING_ADDRESS, 2, "0xfffffffffffffffc"),
    ],
)
def test_unusable_registers_are_named(bench, change, reason, position, message):
    """Each operation finds what is wrong with the registers, says so, and changes nothing."""
    for name, value in change.items():
        setattr(bench.queue, name, value)
    before, memory = bench.queue.state(), bench.mem.read(bench.BASE, bench.ROOM)
    operations = [
        bench.queue.check,
        bench.queue.pop,
        lambda mem: bench.queue.pop_batch(mem, bench.batch),
        lambda mem: bench.queue.add_used(mem, 0, 0),
        lambda mem: bench.queue.complete_batch(mem, bench.batch),
        bench.queue.needs_notification,
        bench.queue.enable_notification,
        bench.queue.disable_notification,
    ]
    for operation in operations:
        with pytest.raises(DriverError, match=message) as caught:
            operation(bench.mem)
        assert (caught.value.reason, caught.value.position, caught.value.head) == (reason, position, None)
    assert not bench.queue.is_valid(bench.mem)
    assert bench.queue.state() == before
    assert bench.mem.read(bench.BASE, bench.ROOM) == memory


def test_rings_may_end_with_the_memory(queue_class):
    """Rings that fill guarded memory to its last byte are valid, and no access goes past them."""
    mem = GuestMemoryMmap([guarded_region(0x1000, 0x1000)])
    queue = queue_class(2)
    queue.desc_table, queue.avail_ring, queue.used_ring = 0x1000, 0x1020, 0x2000 - 6 - 16 - 2
    queue.ready = True
    assert queue.is_valid(mem)
    mem.write(0x1000, struct.pack("<QIHH", 0x1800, 8, 0, 0))
    mem.store(0x1022, 2, 1)
    chain = queue.pop(mem)
    queue.add_used(mem, chain.head, 0)
    assert (chain.segments, mem.load(0x2000 - 6 - 16, 2)) == ((Segment(0x1800, 8, False),), 1)


def test_empty_queue_gives_nothing(bench):
    """No chain is no error."""
    assert bench.queue.pop(bench.mem) is None
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 0


def test_available_index_that_runs_ahead_breaks_the_queue(bench):
    """Each later pop reports it again, and nothing tells the device to keep trying (no livelock)."""
    bench.raw.set_avail_idx(5)
    for _ in range(3):
        with pytest.raises(DriverError, match="5 chains announced, at most 4 may wait") as caught:
            bench.queue.pop(bench.mem)
        assert (caught.value.reason, caught.value.head) == (Reason.AVAILABLE_INDEX, None)
        assert bench.queue.enable_notification(bench.mem) is False
    with pytest.raises(DriverError, match="at most 4 may wait"):
        bench.queue.pop_batch(bench.mem, bench.batch)
    bench.raw.set_avail_idx(0)
    with pytest.raises(DriverError, match="at most 4 may wait"):
        bench.queue.pop(bench.mem)
    assert bench.queue.broken.reason is Reason.AVAILABLE_INDEX
    bench.queue.reset()
    assert bench.queue.broken is None


def test_head_outside_the_table_breaks_the_queue_after_the_good_chains(bench):
    """A batch delivers what came before; the next pop names the head."""
    bench.descriptors((bench.DATA, 8))
    bench.announce(0, 4)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 1
    with pytest.raises(DriverError, match="outside the descriptor table: index 4, queue size 4") as caught:
        bench.queue.pop_batch(bench.mem, bench.batch)
    assert (caught.value.reason, caught.value.head, len(bench.batch)) == (Reason.HEAD, 4, 0)
    assert bench.queue.next_avail == 1


def test_chains_in_flight_count_against_the_queue_size(bench):
    """A guest that announces the same heads over and over cannot make the device hold ever more of them."""
    bench.descriptors((bench.DATA, 8))
    bench.announce(0, 0, 0, 0)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 4
    bench.announce(0)
    with pytest.raises(DriverError, match="1 chains announced, at most 0 may wait"):
        bench.queue.pop(bench.mem)


def test_waiting_and_in_flight_together_are_bounded(bench):
    """With two chains in flight a driver of four descriptors can announce two more, not three."""
    bench.descriptors((bench.DATA, 8))
    bench.announce(0, 0)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 2
    bench.announce(0, 0)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 2
    bench.queue.undo_pop(2)
    bench.announce(0)
    with pytest.raises(DriverError, match="3 chains announced, at most 2 may wait"):
        bench.queue.pop(bench.mem)


def test_broken_chain_is_reported_once_and_can_be_completed(bench):
    """The fault belongs to the chain; the chains around it are fine."""
    bench.descriptors((bench.DATA, 8), (bench.DATA, 8, 1, 9), (bench.DATA, 8))
    bench.announce(0, 1, 2)
    assert bench.queue.pop(bench.mem).head == 0
    with pytest.raises(DriverError, match=r"index 9, table of 4 entries \(chain 1, buffer 1\)") as caught:
        bench.queue.pop(bench.mem)
    assert (caught.value.head, caught.value.position, caught.value.reason) == (1, 1, Reason.INDEX)
    bench.queue.add_used(bench.mem, 1, 0)
    assert bench.queue.pop(bench.mem).head == 2
    assert bench.raw.used_element(0) == (1, 0)


def test_batch_records_broken_chains_beside_good_ones(bench):
    """Errors are per chain; the segments accepted before the fault give its position."""
    bench.descriptors((bench.DATA, 8), (bench.DATA, 8, 1, 9), (bench.DATA, 8, 2))
    bench.announce(0, 1, 2)
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 3
    assert [(error.head, error.position, error.reason) for error in bench.batch.errors()] == [
        (1, 1, Reason.INDEX)
    ]
    assert [record[2:] for record in bench.batch.records()] == [
        (0, 0, 0, 8, 0),
        (1, 0, -Reason.INDEX, 0, 0),
        (2, 0, 0, 0, 8),
    ]
    bench.queue.complete_batch(bench.mem, bench.batch)
    assert [bench.raw.used_element(i) for i in range(3)] == [(0, 0), (1, 0), (2, 0)]


def test_batch_must_hold_the_longest_legal_chain(bench):
    """Otherwise a legal chain could block the queue: that is our caller's mistake."""
    with pytest.raises(ValueError, match="batch has room for 3 segments, queue size is 4"):
        bench.queue.pop_batch(bench.mem, ChainBatch(1, 3))


def test_batch_is_full_at_256_mebibytes(queue_class):
    """Chains over the same memory again and again cannot make one batch the work of minutes."""
    mem = GuestMemoryMmap.from_ranges([(0, 1 << 28)])
    layout = RingLayout.at(0, 4)
    queue = queue_class(4)
    layout.configure(queue)
    raw = RawRings(mem, layout)
    for index, length in enumerate([1 << 28, (1 << 28) - 1, 1, 8]):
        raw.write_descriptor(index, 0, length, 2, 0)
        raw.write_available(index, index)
    raw.set_avail_idx(4)
    batch = ChainBatch(8, 8)
    assert [queue.pop_batch(mem, batch) for _ in range(4)] == [1, 2, 1, 0]


def test_batch_stops_at_the_chain_that_does_not_fit(bench):
    """It is left in the ring, whole, for the next batch."""
    bench.descriptors((bench.DATA, 1, 1, 1), (bench.DATA, 1, 1, 2), (bench.DATA, 1))
    bench.announce(0, 0)
    batch = ChainBatch(8, 5)
    assert [bench.queue.pop_batch(bench.mem, batch), batch.free_segments] == [1, 2]
    assert [bench.queue.pop_batch(bench.mem, batch), batch.free_segments] == [1, 2]


@pytest.mark.parametrize(
    ("head", "written", "message"),
    [
        (4, 0, "chain 4 is no index of a queue of 4"),
        (65536, 0, "head is 0x10000"),
        (0, 1 << 32, "written is 0x10000"),
    ],
)
def test_add_used_refuses_bad_arguments(bench, head, written, message):
    """Nothing is published and no index moves."""
    bench.descriptors((bench.DATA, 8))
    bench.announce(0)
    bench.queue.pop(bench.mem)
    before = bench.queue.state()
    with pytest.raises(ValueError, match=message):
        bench.queue.add_used(bench.mem, head, written)
    assert (bench.queue.state(), bench.raw.used_idx()) == (before, 0)


def test_nothing_is_completed_that_is_not_in_flight(bench):
    """The used index never passes the available one."""
    with pytest.raises(ValueError, match="1 chains to complete, 0 are in flight"):
        bench.queue.add_used(bench.mem, 0, 0)
    bench.batch.append(0)
    with pytest.raises(ValueError, match="1 chains to complete, 0 are in flight"):
        bench.queue.complete_batch(bench.mem, bench.batch)


@pytest.mark.parametrize(
    ("head", "written", "message"),
    [(9, 0, "chain 9 is no index of a queue of 4"), (1, 9, "chain 1: 9 bytes written, 8 writable")],
)
def test_bad_completion_publishes_nothing(bench, head, written, message):
    """One bad chain refuses the whole batch."""
    bench.descriptors((bench.DATA, 8, 2), (bench.DATA, 8, 2))
    bench.announce(0, 1)
    bench.queue.pop_batch(bench.mem, bench.batch)
    completion = ChainBatch(2, 2)
    completion.append(0, [(bench.DATA, 8, True)], written=8)
    completion.append(head, [(bench.DATA, 8, True)], written=written)
    memory = bench.mem.read(bench.BASE, bench.ROOM)
    with pytest.raises(ValueError, match=message):
        bench.queue.complete_batch(bench.mem, completion)
    assert (bench.queue.in_flight, bench.mem.read(bench.BASE, bench.ROOM)) == (2, memory)


def test_undo_pop_gives_the_chain_back(bench):
    """A device that has no data yet leaves the buffer for later."""
    bench.descriptors((bench.DATA, 8, 2))
    bench.announce(0)
    first = bench.queue.pop(bench.mem)
    bench.queue.undo_pop()
    assert bench.queue.pop(bench.mem).segments == first.segments
    with pytest.raises(ValueError, match="cannot give 2 chains back, 1 are in flight"):
        bench.queue.undo_pop(2)


def test_reset_forgets_everything(bench):
    """As fresh from the constructor."""
    fresh = type(bench.queue)(4).state()
    bench.descriptors((bench.DATA, 8))
    bench.announce(0)
    bench.queue.pop(bench.mem)
    bench.queue.reset()
    assert bench.queue.state() == fresh


@pytest.mark.parametrize("power", range(16))
def test_every_size_works_across_the_wrap(queue_class, power):
    """A queue of each size carries chains over the end of the ring and of the 16-bit indices."""
    size, start = 1 << power, 65535
    layout = RingLayout.at(0x1000, size)
    mem = GuestMemoryMmap([guarded_region(0x1000, (layout.end + 0xFFF & ~0xFFF) + 0x1000)])
    first = queue_class(size)
    layout.configure(first)
    queue = queue_class.from_state(attrs.evolve(first.state(), next_avail=start, next_used=start), mem)
    driver = Driver(mem, layout, arena=(layout.end, 0x1000), start=start)
    batch = ChainBatch(4, size + 4)
    for round_ in range(3):
        sent = [driver.request([], [16]) for _ in range(min(size, 4))]
        assert queue.pop_batch(mem, batch) == len(sent)
        for index in range(len(sent)):
            batch.set_written(index, index + round_)
        queue.complete_batch(mem, batch)
        assert [(done.head, done.written) for done in driver.completed()] == [
            (head, index + round_) for index, head in enumerate(sent)
        ]


def test_rings_across_adjacent_regions(queue_class):
    """A ring that spans two regions works as one that lies in one region, down to the dirty pages."""
    mem = GuestMemoryMmap([guarded_region(0x1000 * page, 0x1000) for page in range(1, 6)])
    layout = RingLayout(256, 0x1800, 0x2F00, 0x3F00)
    queue = queue_class(256)
    layout.configure(queue, indirect=True)
    driver = Driver(mem, layout, indirect=True, arena=(0x4F00, 0x1000))
    mem.take_dirty()
    batch = ChainBatch(256, 1024)
    for _ in range(300):
        driver.request([b"abc"], [5], indirect=True)
        assert queue.pop_batch(mem, batch) == 1
        assert batch.chain(0, mem).reader().read_all() == b"abc"
        batch.set_written(0, 5)
        assert queue.complete_batch(mem, batch)
        assert [done.written for done in driver.completed()] == [5]
    assert queue.state().next_used == 300


def test_only_the_used_ring_gets_dirty(bench):
    """Popping writes nothing; completing marks the page of the used ring."""
    mem = bench.mem
    layout = RingLayout(4, 0x10000, 0x11000, 0x12000)
    queue = type(bench.queue)(4)
    layout.configure(queue)
    mem.write(
        0x10000, (0x13000).to_bytes(8, "little") + (8).to_bytes(4, "little") + (2).to_bytes(4, "little")
    )
    mem.store(0x11002, 2, 1)
    mem.take_dirty()
    assert queue.pop_batch(mem, bench.batch) == 1
    assert mem.take_dirty() == ()
    queue.complete_batch(mem, bench.batch)
    assert mem.take_dirty() == ((0x12000, 0x1000),)
    queue.enable_notification(mem)
    assert mem.take_dirty() == ((0x12000, 0x1000),)


def test_index_and_elements_on_different_pages(bench):
    """Each page that a completion or a hint touches is marked, also when the used ring straddles pages."""
    mem, layout = bench.mem, RingLayout(4, 0x10000, 0x10100, 0x11FFC)
    queue = type(bench.queue)(4)
    layout.configure(queue)
    mem.write(0x10000, struct.pack("<QIHH", 0x13000, 8, 2, 0))
    mem.store(0x10102, 2, 1)
    mem.take_dirty()
    queue.add_used(mem, queue.pop(mem).head, 0)
    assert mem.take_dirty() == ((0x11000, 0x2000),)
    queue.disable_notification(mem)
    assert mem.take_dirty() == ((0x11000, 0x1000),)
    queue.event_idx = True
    queue.enable_notification(mem)
    assert mem.take_dirty() == ((0x12000, 0x1000),)
