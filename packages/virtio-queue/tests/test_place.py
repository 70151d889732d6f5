"""Rings that go to another backend and come back; resets of one ring; data of notifications."""

import attrs
import pytest
from virtio_queue import DriverError, InvalidStateError, NotificationData
from virtio_queue.testing import Driver, RingLayout
from vmm_memory import GuestMemoryMmap

WRAP = 1 << 15


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def ring(request, queue_class):
    """A memory, a layout, a queue of four and a driver, in each format."""
    mem = GuestMemoryMmap.from_ranges([(0, 0x1_0000)])
    layout = RingLayout.at(0x1000, 4, packed=request.param)
    queue = queue_class(8)
    layout.configure(queue, event_idx=True, indirect=True)
    return mem, layout, queue, Driver(mem, layout, event_idx=True, arena=(0x8000, 0x1000))


def test_there_and_back(ring, queue_class):
    """Another queue goes on with the place alone, and this one with where it came to."""
    mem, layout, queue, driver = ring
    for _ in range(3):
        driver.request([b"x"])
        queue.add_used(mem, queue.pop(mem).head, 0)
    assert queue.needs_notification(mem) is True
    place = queue.detach()
    assert (queue.ready, place.next_avail, place.wraps) == (False, layout.position(3), (True, True))
    other = queue_class(8)
    other.event_idx = True
    other.attach(place, mem)
    assert len(list(driver.completed())) == 3
    driver.enable_interrupts()
    for _ in range(3):
        driver.request([b"x"])
        other.add_used(mem, other.pop(mem).head, 0)
    assert other.needs_notification(mem) is True
    base = other.detach().vring_base
    back = place.moved(base)
    assert back.next_used == back.next_avail == layout.position(6)
    assert back.wraps == (not layout.packed, not layout.packed)
    queue.attach(back, mem)
    driver.request([b"x"])
    queue.add_used(mem, queue.pop(mem).head, 0)
    assert len(list(driver.completed())) == 4


def test_vring_base(ring):
    """As vhost has it: one position for a split ring, both for a packed one."""
    _mem, layout, queue, _driver = ring
    place = attrs.evolve(queue.detach(), next_avail=3, next_used=WRAP | 1)
    assert place.vring_base == (3 | (WRAP | 1) << 16 if layout.packed else 3)
    assert place.moved(place.vring_base, next_used=WRAP | 1) == place
    with pytest.raises(ValueError, match="vring_base is 0x100000000, must be from 0 to"):
        place.moved(1 << 32)


def test_chains_in_flight_stay(ring):
    """Whoever popped a chain completes it."""
    mem, _layout, queue, driver = ring
    place = queue.detach()
    queue.ready = True
    driver.request([b"x"])
    queue.pop(mem)
    before = queue.state()
    with pytest.raises(ValueError, match="cannot detach the ring with 1 chains in flight"):
        queue.detach()
    with pytest.raises(ValueError, match="cannot attach a ring with 1 chains in flight"):
        queue.attach(place)
    assert queue.state() == before


def test_bad_places_are_refused(ring):
    """By the rules of a saved state, and by memory when it is given."""
    mem, layout, queue, _driver = ring
    place = queue.detach()
    before = queue.state()
    with pytest.raises(InvalidStateError, match="next_avail is 65536"):
        queue.attach(attrs.evolve(place, next_avail=1 << 16))
    with pytest.raises(DriverError, match="device area outside guest memory"):
        queue.attach(attrs.evolve(place, used_ring=1 << 40), mem)
    assert queue.state() == before
    if layout.packed:
        with pytest.raises(DriverError, match="descriptor 5, queue size 4"):
            queue.attach(attrs.evolve(place, next_avail=WRAP | 5), mem)


def test_reset_of_one_ring(ring):
    """2.6.1: fresh, but what was negotiated stays; chains in flight are gone, and the driver begins anew."""
    mem, layout, queue, driver = ring
    driver.request([b"x"])
    queue.pop(mem)
    queue.reset_ring()
    assert (queue.ready, queue.size, queue.desc_table, queue.in_flight) == (False, 8, 0, 0)
    assert (queue.packed, queue.event_idx, queue.indirect) == (layout.packed, True, True)
    assert queue.next_avail == queue.next_used == layout.position(0)
    layout.configure(queue, event_idx=True, indirect=True)
    fresh = Driver(mem, layout, event_idx=True, arena=(0x8000, 0x1000))
    fresh.request([b"y"])
    assert queue.pop(mem).reader().read_all() == b"y"


@pytest.mark.parametrize("count", [0, 3, 5, 9])
def test_notification_data(ring, count):
    """2.9: the queue's index below, the driver's position above, in both formats."""
    mem, layout, queue, driver = ring
    for _ in range(count):
        driver.request([b"x"])
        queue.add_used(mem, queue.pop(mem).head, 0)
        list(driver.completed())
    data = NotificationData.decode(driver.next_avail << 16 | 7)
    assert (data.queue, data.position, data.encode()) == (7, queue.next_avail, driver.next_avail << 16 | 7)
    if layout.packed:
        assert (data.next_offset, data.next_wrap) == (count % 4, count // 4 % 2 == 0)


def test_notification_has_32_bits():
    """More is not a notification."""
    with pytest.raises(ValueError, match="notification is 0x100000000, must be from 0 to 0xffffffff"):
        NotificationData.decode(1 << 32)
