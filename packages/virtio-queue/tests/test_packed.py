"""The packed ring, with an honest driver and with one that is not."""

import attrs
import pytest
from virtio_queue import ChainBatch, DriverError, Reason, Segment
from virtio_queue.testing import Driver, PackedRings, RingLayout
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

BASE, ROOM = 0x1_0000, 0x8000
DATA = BASE + 0x2000
NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15
FIRST, SECOND = AVAIL, USED  # flags that make an element available in odd and even laps
WRAP = 1 << 15


class PackedBench:
    """A packed queue with raw access to its ring, on memory whose ends are guarded."""

    def __init__(self, queue_class, size=4, *, event_idx=False, indirect=True, start=0):
        self.mem = GuestMemoryMmap([guarded_region(BASE, ROOM)])
        self.layout = RingLayout.at(BASE, size, packed=True)
        queue = queue_class(size)
        self.layout.configure(queue, event_idx=event_idx, indirect=indirect)
        place = self.layout.position(start)
        state = attrs.evolve(queue.state(), next_avail=place, next_used=place)
        self.queue = queue_class.from_state(state, self.mem)
        self.raw = PackedRings(self.mem, self.layout)
        self.batch = ChainBatch(64, max(size, 64))
        self.start = start

    def driver(self, **options):
        """An honest driver on the same ring."""
        return Driver(self.mem, self.layout, arena=(DATA, 0x4000), start=self.start, **options)

    def pop(self):
        """One chain, or the error."""
        return self.queue.pop(self.mem)

    def used(self, slot):
        """(id, length, flags) of an element."""
        _addr, length, head, flags = self.raw.descriptor(slot)
        return head, length, flags


@pytest.fixture
def make_packed(queue_class):
    """A packed ring with chosen size and features, for each implementation."""
    return lambda size=4, **options: PackedBench(queue_class, size, **options)


@pytest.fixture
def packed(make_packed):
    """A packed ring of four entries."""
    return make_packed()


def test_positions_begin_with_wrap_counter_one(packed):
    """2.8.1: both wrap counters are initialized to 1; a zeroed ring is empty in the first lap."""
    assert (packed.queue.next_avail, packed.queue.next_used, packed.queue.in_flight) == (WRAP, WRAP, 0)
    assert packed.pop() is None
    assert packed.queue.enable_notification(packed.mem) is False


def test_one_used_element_for_a_list(packed):
    """2.8.6: id from the last element, one used element, then the list's length is skipped."""
    packed.raw.write_descriptor(1, DATA + 8, 8, 7, FIRST | WRITE)
    packed.raw.write_descriptor(0, DATA, 4, 99, FIRST | NEXT)
    chain = packed.pop()
    assert (chain.head, [tuple(segment) for segment in chain]) == (7, [(DATA, 4, False), (DATA + 8, 8, True)])
    assert packed.queue.next_avail == WRAP | 2
    packed.queue.add_used(packed.mem, 7, 3)
    assert packed.used(0) == (7, 3, AVAIL | USED | WRITE)
    assert packed.used(1) == (7, 8, FIRST | WRITE)
    assert (packed.queue.next_used, packed.queue.in_flight) == (WRAP | 2, 0)


def test_used_without_data_has_no_write_flag(make_packed):
    """2.8.3; and in an even lap both state bits are 0."""
    packed = make_packed(4, start=6)
    packed.raw.write_descriptor(2, DATA, 4, 1, SECOND)
    packed.queue.add_used(packed.mem, packed.pop().head, 0)
    assert packed.used(2) == (1, 0, 0)
    assert (packed.queue.next_avail, packed.queue.next_used) == (3, 3)


@pytest.mark.parametrize("flags", [0, AVAIL | USED, SECOND])
def test_only_one_pattern_is_available(packed, flags):
    """2.8.1: AVAIL equals the wrap counter and USED does not."""
    packed.raw.write_descriptor(0, DATA, 4, 1, flags)
    assert packed.pop() is None


def test_completion_out_of_order(packed):
    """Used elements are written in the order of completion, each skipping its own list."""
    driver = packed.driver()
    heads = [driver.request([b"a"] * count, [1]) for count in (1, 0, 0)]
    chains = [packed.pop() for _ in heads]
    assert [chain.head for chain in chains] == heads
    for index in (2, 0, 1):
        packed.mem.write(chains[index].writable[0].addr, bytes([index]))
        packed.queue.add_used(packed.mem, heads[index], 1)
    assert [done.data for done in driver.completed()] == [(b"\x02",), (b"\x00",), (b"\x01",)]
    assert packed.queue.next_used == packed.queue.next_avail == 0  # wrapped


def test_table_is_read_in_order_whatever_its_links_say(packed):
    """2.8.7: in an indirect table only WRITE counts."""
    packed.mem.write(
        DATA + 0x100,
        b"".join(
            addr.to_bytes(8, "little")
            + length.to_bytes(4, "little")
            + b"\xff\xff"
            + flags.to_bytes(2, "little")
            for addr, length, flags in ((DATA, 1, NEXT | INDIRECT), (DATA + 1, 2, NEXT | WRITE | USED))
        ),
    )
    packed.raw.write_descriptor(0, DATA + 0x100, 32, 3, FIRST | INDIRECT | WRITE)
    chain = packed.pop()
    assert (chain.head, [tuple(segment) for segment in chain]) == (3, [(DATA, 1, False), (DATA + 1, 2, True)])
    assert packed.queue.next_avail == WRAP | 1


ROWS = {
    "not negotiated": ([(DATA, 16, INDIRECT)], Reason.INDIRECT_NOT_NEGOTIATED, 0),
    "table with next": ([(DATA, 16, INDIRECT | NEXT), (DATA, 1, 0)], Reason.INDIRECT_WITH_NEXT, 0),
    "table after buffer": ([(DATA, 1, NEXT), (DATA, 16, INDIRECT)], Reason.INDIRECT_WITH_NEXT, 1),
    "empty table": ([(DATA, 0, INDIRECT)], Reason.TABLE_SIZE, 0),
    "odd table": ([(DATA, 24, INDIRECT)], Reason.TABLE_SIZE, 0),
    "table outside": ([(BASE + ROOM - 8, 16, INDIRECT)], Reason.TABLE_ADDRESS, 0),
    "long table": ([(DATA, 16 * 5, INDIRECT)], Reason.TOO_LONG, 4),
    "order": ([(DATA, 1, WRITE | NEXT), (DATA, 1, NEXT), (DATA, 1, WRITE)], Reason.ORDER, 1),
    "outside": ([(DATA, 1, NEXT), (BASE + ROOM, 1, WRITE)], Reason.ADDRESS, 1),
    "total": ([(DATA, 0x4000, NEXT), (DATA, 0xFFFF_FFFF, NEXT), (DATA, 0, 0)], Reason.TOTAL, 1),
}


@pytest.mark.parametrize("name", ROWS)
def test_broken_list_is_taken_and_named(make_packed, name):
    """The list is skipped as a whole, has the id of its last element, and can be completed."""
    rows, reason, position = ROWS[name]
    packed = make_packed(4, indirect=name != "not negotiated", start=2)
    slots = [(2 + offset) % 4 for offset in range(len(rows))]
    for offset, (slot, (addr, length, flags)) in enumerate(zip(slots, rows, strict=True)):
        packed.raw.write_descriptor(slot, addr, length, 40 + offset, flags | (FIRST if slot >= 2 else SECOND))
    head = 40 + len(rows) - 1
    with pytest.raises(DriverError) as caught:
        packed.pop()
    assert (caught.value.reason, caught.value.head, caught.value.position) == (reason, head, position)
    assert (packed.queue.in_flight, packed.queue.broken) == (1, None)
    packed.queue.add_used(packed.mem, head, 0)
    assert packed.used(2) == (head, 0, AVAIL | USED)
    assert packed.queue.next_used == packed.queue.next_avail == packed.layout.position(2 + len(rows))


def test_list_without_an_end_breaks_the_queue(packed):
    """Nobody knows where the next list begins: nothing is taken, and nothing more is popped."""
    for slot in range(4):
        packed.raw.write_descriptor(slot, DATA, 1, slot, FIRST | NEXT)
    for _ in range(2):
        with pytest.raises(DriverError, match="no end within 4 descriptors, queue size 4") as caught:
            packed.pop()
        assert (caught.value.reason, caught.value.head) == (Reason.ENDLESS, None)
    assert packed.queue.broken.reason is Reason.ENDLESS
    assert packed.queue.enable_notification(packed.mem) is False
    assert packed.queue.in_flight == 0


def test_list_that_runs_into_held_descriptors_breaks_the_queue(packed):
    """What the device holds is not the driver's to offer again."""
    packed.raw.write_descriptor(0, DATA, 1, 5, FIRST)
    assert packed.pop().head == 5
    for slot in range(1, 4):
        packed.raw.write_descriptor(slot, DATA, 1, 6, FIRST | NEXT)
    with pytest.raises(DriverError, match="no end within 3 descriptors"):
        packed.pop()


def test_full_ring_offered_again_breaks_the_queue(packed):
    """A driver cannot make the device hold more than the ring has."""
    for slot in range(4):
        packed.raw.write_descriptor(slot, DATA, 1, slot, FIRST)
    assert packed.queue.pop_batch(packed.mem, packed.batch) == 4
    assert packed.queue.enable_notification(packed.mem) is False
    packed.raw.write_descriptor(0, DATA, 1, 9, SECOND)
    assert packed.queue.enable_notification(packed.mem) is True
    with pytest.raises(DriverError, match="1 chains announced, at most 0 may wait"):
        packed.pop()
    assert packed.queue.enable_notification(packed.mem) is False


def test_id_in_flight_twice_breaks_the_queue(packed):
    """Chains before it are delivered; a completion of the id would be ambiguous."""
    for slot, head in enumerate((3, 4, 3)):
        packed.raw.write_descriptor(slot, DATA, 1, head, FIRST)
    assert packed.queue.pop_batch(packed.mem, packed.batch) == 2
    with pytest.raises(DriverError, match=r"still has: id 3 \(chain 3, buffer 0\)") as caught:
        packed.queue.pop_batch(packed.mem, packed.batch)
    assert caught.value.reason is Reason.BUFFER_ID
    packed.queue.add_used(packed.mem, 4, 0)
    assert packed.queue.in_flight == 1


def test_any_id_will_do(packed):
    """2.8.5 does not bound ids; the highest is as good as another."""
    packed.raw.write_descriptor(0, DATA, 1, 0xFFFF, FIRST)
    assert packed.pop().head == 0xFFFF
    packed.queue.add_used(packed.mem, 0xFFFF, 0)
    assert packed.used(0) == (0xFFFF, 0, AVAIL | USED)


def test_completion_needs_a_chain_in_flight(packed):
    """What was never popped, is complete already, or is twice in a batch, is refused as a whole."""
    driver = packed.driver()
    heads = [driver.request([], [4]) for _ in range(2)]
    before = packed.mem.read(BASE, 0x60)
    with pytest.raises(ValueError, match=f"chain {heads[0]} is not in flight"):
        packed.queue.add_used(packed.mem, heads[0], 0)
    packed.queue.pop_batch(packed.mem, packed.batch)
    for good, wrong in ((heads, heads[0]), (heads, 77), (heads[:1], heads[0]), (heads[:1], 77)):
        packed.batch.clear()
        for head in (*good, wrong):
            packed.batch.append(head)
        with pytest.raises(ValueError, match=f"chain {wrong} is not in flight"):
            packed.queue.complete_batch(packed.mem, packed.batch)
        assert (packed.mem.read(BASE, 0x60), packed.queue.in_flight) == (before, 2)
    packed.batch.clear()
    for head in heads:
        packed.batch.append(head)
    assert packed.queue.complete_batch(packed.mem, packed.batch) is True
    with pytest.raises(ValueError, match=f"chain {heads[1]} is not in flight"):
        packed.queue.add_used(packed.mem, heads[1], 0)


def test_undo_gives_back_the_last_only(packed):
    """Across the wrap; a chain that was completed bars those before it."""
    driver = packed.driver()
    for count in (2, 1, 1):
        driver.request([b"x"] * count)
    chains = [packed.pop() for _ in range(3)]
    packed.queue.undo_pop(2)
    assert packed.queue.next_avail == WRAP | 2
    assert [packed.pop().head for _ in range(2)] == [chain.head for chain in chains[1:]]
    assert packed.queue.next_avail == 0
    packed.queue.add_used(packed.mem, chains[1].head, 0)
    packed.queue.undo_pop(1)
    before = packed.queue.state()
    with pytest.raises(ValueError, match="cannot give 2 chains back, 1 are in flight"):
        packed.queue.undo_pop(2)
    with pytest.raises(ValueError, match="cannot give 1 chains back, of the last 1 some were completed"):
        packed.queue.undo_pop(1)
    assert packed.queue.state() == before


def test_format_cannot_change_under_chains(packed):
    """Positions and ids of one format mean nothing in the other."""
    packed.driver().request([b"x"])
    packed.pop()
    with pytest.raises(ValueError, match="packed cannot become False with 1 chains in flight"):
        packed.queue.packed = False
    packed.queue.packed = True
    packed.queue.reset()
    assert (packed.queue.packed, packed.queue.next_avail) == (False, 0)


def test_shrunken_ring_is_refused(make_packed):
    """A driver that changes the size without a reset gets an error, not an access behind the end."""
    packed = make_packed(8, start=6)
    packed.queue.size = 4
    with pytest.raises(DriverError, match="descriptor 6, queue size 4") as caught:
        packed.pop()
    assert caught.value.reason is Reason.RING_POSITION


def test_ring_shrunken_under_chains_is_refused(make_packed):
    """Positions fit, but a list in flight is longer than the ring: completing it would move behind it."""
    packed = make_packed(16)
    driver = packed.driver()
    for count in (10, 2):
        driver.request([b"x"] * count)
    packed.queue.pop_batch(packed.mem, packed.batch)
    before = packed.mem.read(BASE, 16 * 16)
    packed.queue.size = 4
    for call in (packed.queue.complete_batch, packed.queue.pop_batch):
        with pytest.raises(DriverError, match="descriptor 12, queue size 4") as caught:
            call(packed.mem, packed.batch)
        assert caught.value.reason is Reason.RING_POSITION
    assert packed.mem.read(BASE, 16 * 16) == before
    packed.queue.size = 16
    assert packed.queue.in_flight == 2


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("event_idx", [False, True])
def test_no_wakeup_is_lost(make_packed, size, event_idx):
    """Both sleep until told, over many laps: with exact decisions all requests get through."""
    packed = make_packed(size, event_idx=event_idx)
    driver = packed.driver(event_idx=event_idx, indirect=True)
    batch = ChainBatch(3, size)
    sent = done = kicks = interrupts = 0
    device_awake, driver_awake = not packed.queue.enable_notification(packed.mem), True
    while done < 300:
        assert driver_awake or device_awake, f"both sleep after {done} of {sent}"
        if driver_awake:
            done += len(list(driver.completed()))
            driver.disable_interrupts()
            while driver.free_descriptors > (extra := min(sent % 2, size - 1)):
                driver.request([b"x"] * extra, [1], indirect=sent % 3 == 0)
                sent += 1
            if driver.kick_needed():
                kicks += 1
                device_awake = True
            driver_awake = driver.enable_interrupts()
        if device_awake:
            packed.queue.disable_notification(packed.mem)
            if packed.queue.pop_batch(packed.mem, batch) and packed.queue.complete_batch(packed.mem, batch):
                interrupts += 1
                driver_awake = True
            device_awake = packed.queue.enable_notification(packed.mem)
    assert kicks > 0
    assert interrupts > 0


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_event_decision_is_exact(make_packed, size):
    """Each position of the event against each number of used descriptors, over two laps (2.8.10)."""
    for start in range(2 * size):
        for added in range(2 * size + 2):
            passed = {(start + back) % (2 * size) for back in range(added)}
            for event in range(2 * size):
                packed = make_packed(size, event_idx=True, start=start)
                driver = packed.driver()
                for _ in range(added):
                    driver.request([], [1])
                    packed.queue.add_used(packed.mem, packed.pop().head, 1)
                    list(driver.completed())
                packed.raw.set_driver_event(packed.layout.position(event), 2)
                assert packed.queue.needs_notification(packed.mem) is (event in passed), (start, added, event)
                assert packed.queue.needs_notification(packed.mem) is False


@pytest.mark.parametrize(
    ("event_idx", "position", "flags", "expected"),
    [
        (False, 0, 0, True),
        (False, 0, 1, False),
        (False, 0, 2, True),  # not negotiated
        (True, 0, 3, True),  # reserved
        (True, 4, 2, True),  # no such descriptor
        (True, 0x7FFF, 2, True),
        (True, 0, 1, False),
        (True, 0, 0xFFFD, False),  # 14 bits are reserved
    ],
)
def test_odd_wishes(make_packed, event_idx, position, flags, expected):
    """Whatever means nothing gets an interrupt too many rather than one too few."""
    packed = make_packed(4, event_idx=event_idx)
    driver = packed.driver()
    packed.raw.set_driver_event(position, flags)
    assert packed.queue.needs_notification(packed.mem) is False
    driver.request([], [1])
    packed.queue.add_used(packed.mem, packed.pop().head, 1)
    assert packed.queue.needs_notification(packed.mem) is expected
    assert packed.queue.needs_notification(packed.mem) is False


def test_wish_of_the_device(make_packed):
    """2.8.10: no kicks; any kick; or the one for the next descriptor, in one word."""
    for event_idx, wish in ((False, (0, 0)), (True, (1, 2))):
        packed = make_packed(4, event_idx=event_idx, start=5)
        packed.queue.disable_notification(packed.mem)
        assert packed.raw.device_event() == (0, 1)
        assert packed.queue.enable_notification(packed.mem) is False
        assert packed.raw.device_event() == wish


def test_batch_ends_with_its_segments(make_packed):
    """The list for which there is no room stays in the ring, whole."""
    packed = make_packed(8)
    driver = packed.driver(indirect=True)
    for count in (3, 6, 4):
        driver.request([b"x"] * count, indirect=count == 6)
    batch = ChainBatch(8, 8)
    for expected in (3, 6, 4):
        assert packed.queue.pop_batch(packed.mem, batch) == 1
        assert len(batch.segments(0)) == expected
    assert packed.queue.pop_batch(packed.mem, batch) == 0


def test_saved_and_restored_in_the_middle(queue_class, make_packed):
    """Chains in flight are completed by the restored queue, out of order, and the rest is given back."""
    packed = make_packed(5, event_idx=True, start=3)
    driver = packed.driver(event_idx=True)
    for count in (1, 2, 1):
        driver.request([b"x"] * (count - 1), [1])
    chains = [packed.pop() for _ in range(3)]
    packed.queue.add_used(packed.mem, chains[1].head, 1)
    state = packed.queue.state()
    assert [(held.head, held.descriptors) for held in state.held] == [
        (chains[0].head, 1),
        (chains[2].head, 1),
    ]
    restored = queue_class.from_state(type(state)(**attrs.asdict(state)), packed.mem)
    assert restored.state() == state
    restored.undo_pop(1)
    assert restored.pop(packed.mem).head == chains[2].head
    assert restored.needs_notification(packed.mem) is packed.queue.needs_notification(packed.mem)
    for index in (2, 0):
        restored.add_used(packed.mem, chains[index].head, 1)
    assert [done.head for done in driver.completed()] == [chains[index].head for index in (1, 2, 0)]


def test_chain_not_yet_announced(make_packed):
    """Nothing is visible before it is published, with one store."""
    packed = make_packed(3, start=2)
    driver = packed.driver()
    for _ in range(2):
        driver.add([Segment(DATA, 1, False)], announce=False)
    assert driver.next_avail == 1
    assert packed.pop() is None
    driver.publish()
    assert packed.queue.pop_batch(packed.mem, packed.batch) == 2
