"""The driver side: honest, complete, and watchful."""

import pytest
from virtio_queue import ChainBatch, Segment
from virtio_queue.testing import Completion, DeviceFaultError, Driver, RingLayout
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region


def test_request_travels_there_and_back(bench):
    """Data goes out, an answer comes in, and everything is free again."""
    driver = bench.driver(indirect=True)
    head = driver.request([b"ab", b"cdef"], [4, 4], indirect=True)
    chain = bench.queue.pop(bench.mem)
    assert (chain.head, chain.reader().read_all()) == (head, b"abcdef")
    chain.writer().write(b"hello")
    bench.queue.add_used(bench.mem, head, 5)
    assert list(driver.completed()) == [Completion(head, 5, (b"hell", b"o"))]
    assert (driver.free_descriptors, driver.outstanding) == (4, ())


def test_limits(bench):
    """The driver itself keeps the rules, and a refusal leaves it as it was."""
    driver = bench.driver()
    with pytest.raises(ValueError, match="0 buffers, must be from 1 to the queue size, 4"):
        driver.add([])
    with pytest.raises(ValueError, match="5 buffers"):
        driver.request([], [1] * 5)
    with pytest.raises(ValueError, match="indirect chain of 1 buffers, but the feature is not negotiated"):
        driver.add([Segment(0, 1, False)], indirect=True)
    driver.request([], [1] * 3)
    with pytest.raises(MemoryError, match="2 descriptors needed, 1 of 4 are free"):
        driver.request([], [1] * 2)
    with pytest.raises(MemoryError, match="has no room for 8192"):
        driver.request([], [8192])
    assert (driver.free_descriptors, len(driver.outstanding)) == (1, 1)


def test_a_device_that_lies_is_caught(bench):
    """Used elements for chains it does not have, or with more bytes than there was room."""
    driver = bench.driver()
    head = driver.request([], [4])
    bench.queue.pop(bench.mem)
    bench.queue.add_used(bench.mem, head, 5)
    with pytest.raises(DeviceFaultError, match=f"chain {head}: 5 bytes used, 4 writable"):
        list(driver.completed())
    other = bench.driver()
    bench.raw.set_used_idx(1)
    with pytest.raises(DeviceFaultError, match="used element 0: chain 0 is not with the device"):
        list(other.completed())


@pytest.mark.parametrize("event_idx", [False, True])
def test_no_wakeup_is_lost(make_bench, event_idx):
    """Driver and device each sleep until told: with exact decisions all requests get through."""
    bench = make_bench(8, event_idx=event_idx)
    driver = bench.driver(event_idx=event_idx)
    batch = ChainBatch(3, 8)
    sent = done = kicks = interrupts = 0
    device_awake = not bench.queue.enable_notification(bench.mem)
    driver_awake = True
    while done < 500:
        assert driver_awake or device_awake, f"both sleep after {done} of {sent}"
        if driver_awake:
            done += len(list(driver.completed()))
            driver.disable_interrupts()
            while driver.free_descriptors:
                sent += 1
                driver.request([], [1])
            if driver.kick_needed():
                kicks += 1
                device_awake = True
            driver_awake = driver.enable_interrupts()
        if device_awake:
            bench.queue.disable_notification(bench.mem)
            if bench.queue.pop_batch(bench.mem, batch) and bench.queue.complete_batch(bench.mem, batch):
                interrupts += 1
                driver_awake = True
            device_awake = bench.queue.enable_notification(bench.mem)
    assert kicks > 0
    assert interrupts > 0


def test_suppressed_kicks(make_bench):
    """A device that is awake is not kicked; one that asked for the next chain is, once."""
    for event_idx in (False, True):
        bench = make_bench(event_idx=event_idx)
        driver = bench.driver(event_idx=event_idx)
        bench.queue.enable_notification(bench.mem)
        driver.request([], [1])
        assert driver.kick_needed() is True
        bench.queue.disable_notification(bench.mem)
        driver.request([], [1])
        assert driver.kick_needed() is False
        assert driver.kick_needed() is False


@pytest.mark.parametrize(("packed", "positions"), [(False, [0, 1, 2]), (True, [0x8000, 0x8002, 0x0000])])
def test_a_driver_says_where_its_next_chain_goes(packed, positions):
    """What a notification with VIRTIO_F_NOTIFICATION_DATA carries (2.9): an index, or a slot and its wrap."""
    mem = GuestMemoryMmap([guarded_region(0x1000, 0x2000)])
    layout = RingLayout.at(0x1000, 4, packed=packed)
    driver = Driver(mem, layout, arena=(0x2000, 0x1000))
    found = [driver.next_avail]
    for _ in range(2):
        driver.request([b"a"], [1])
        found.append(driver.next_avail)
    assert found == positions
