"""Serving queues: gates, batches, fairness, broken handlers, stopping, shared loops."""

import threading

import pytest
from virtio_devices import DiskImage, InterruptBit, TransportStateError, VirtioBlk
from virtio_devices._server import MAX_CHAINS, MAX_ROUNDS
from virtio_devices.testing import BlkDriver
from vm_device import EventManager


def zero(memory, chain):
    """Use nothing."""
    return 0


def test_batches_are_completed_together(rig, scripted):
    """A batch handler sees all chains that are there and one interrupt is enough for them."""
    sizes = []

    def handle(memory, batch):
        sizes.append(len(batch))
        for index in range(len(batch)):
            memory.write(batch.segments(index)[0].addr, b"!")
            batch.set_written(index, 1)
        return True

    made = rig(scripted(handle, batches=True))
    made.driver.initialise()
    made.mmio.pause()
    for _ in range(100):
        made.driver.queues[0].request([], [1])
    made.mmio.resume()
    done = made.driver.wait(count=100)
    assert {completion.data for completion in done} == {(b"!",)}
    assert sizes == [MAX_CHAINS, 100 - MAX_CHAINS]


def test_a_broken_chain_spares_the_sound_ones_of_its_batch(rig, scripted):
    """Sound requests before and after a broken one are answered, then the device asks for a reset."""

    def handle(memory, batch):
        return not batch.errors()

    made = rig(scripted(handle, batches=True))
    made.driver.initialise()
    made.mmio.pause()
    queue = made.driver.queues[0]
    heads = [queue.request([b"a"], []), queue.request([b"b"], [1]), queue.request([b"c"], [])]
    second = queue.layout.desc_table + 16  # of either format, and each chain so far took one descriptor
    made.memory.write(second, (1 << 50).to_bytes(8, "little"))
    made.mmio.resume()
    made.driver.wait_for_reset_request()
    assert [completion.head for completion in queue.completed()] == heads


@pytest.mark.parametrize("batches", [False, True])
def test_a_gate_leaves_requests_in_the_ring(rig, scripted, batches):
    """While the gate is closed nothing is popped; resume() looks again."""
    open_gate = threading.Event()

    def handle(memory, chain):
        return True if batches else 0

    made = rig(scripted(handle, batches=batches, gate=open_gate.is_set))
    made.driver.initialise()
    head = made.driver.queues[0].request([b"x"], [])
    made.driver.kick(always=True)
    made.mmio.pause()
    assert made.mmio.queue_stats()[0].chains == made.mmio.state().host.queues[0].next_avail & 0x7FFF == 0
    made.mmio.resume()
    open_gate.set()
    made.device.server.resume()
    assert [completion.head for completion in made.driver.wait()] == [head]


def test_a_handler_that_raises_asks_for_a_reset(rig, scripted, caplog):
    """A bug in a handler is logged with its traceback, the driver is told, and the loop lives on."""

    def handle(memory, chain):
        raise ZeroDivisionError("a bug")

    made = rig(scripted(handle))
    made.driver.initialise()
    made.driver.queues[0].request([b"x"], [])
    made.driver.kick(always=True)
    made.driver.wait_for_reset_request()
    assert made.driver.acknowledge() == InterruptBit.CONFIG_CHANGE
    assert "ZeroDivisionError: a bug" in caplog.text
    made.device.handler = zero
    made.driver.initialise()
    assert made.driver.request([b"x"], []).written == 0


def test_a_handler_that_lies_about_its_length_is_a_bug_of_the_device(rig, scripted, caplog):
    """More bytes used than there was room is never published by a batch."""

    def handle(memory, batch):
        batch.set_written(0, 100)
        return True

    made = rig(scripted(handle, batches=True))
    made.driver.initialise()
    made.driver.queues[0].request([b"x"], [1])
    made.driver.kick(always=True)
    made.driver.wait_for_reset_request()
    assert list(made.driver.queues[0].completed()) == []
    assert "100 bytes written, 1 writable" in caplog.text


def test_a_short_request_is_the_drivers_fault(rig, scripted, caplog):
    """Reading beyond the end of a chain is a DriverError, one line in the log, no traceback."""
    made = rig(scripted(lambda memory, chain: len(chain.reader().read(64))))
    made.driver.initialise()
    made.driver.queues[0].request([b"x"], [])
    made.driver.kick(always=True)
    made.driver.wait_for_reset_request()
    assert [record.exc_info for record in caplog.records] == [None]


def test_a_config_write_that_raises_asks_for_a_reset(rig, scripted):
    """A device method that fails does not reach the vCPU thread."""
    made = rig(scripted(zero))
    made.driver.initialise()
    made.driver.write_config(0, 4, 1)
    assert made.driver.needs_reset


def test_an_endless_driver_does_not_keep_the_loop(rig, scripted):
    """A ring that refills itself is left after a bounded number of rounds: others get their turn."""
    served, others = [], []

    def handle(memory, chain):
        served.append(chain.head)
        queue = made.driver.queues[0]
        if len(served) < 3 * MAX_ROUNDS * MAX_CHAINS:
            list(queue.completed())
            queue.request([b"x"], [])
            queue.request([b"x"], [])
        return 0

    with EventManager("shared") as loop:
        made = rig(scripted(handle), loop=loop)
        made.driver.initialise()
        made.driver.queues[0].request([b"x"], [])
        loop.start()
        made.driver.kick(always=True)
        done = threading.Event()
        loop.call_soon(lambda: (others.append(len(served)), done.set()))
        assert done.wait(60)
        made.mmio.close()
    assert others[0] <= 2 * MAX_ROUNDS * MAX_CHAINS


def test_two_devices_share_a_loop(rig, image):
    """Several devices on one thread work side by side, and stopping one leaves the other."""
    with EventManager("shared") as loop:
        loop.start()
        memory_rigs = []
        for name in ("a", "b"):
            made = rig(VirtioBlk(name, DiskImage(image(name=name)[0])), loop=loop)
            memory_rigs.append(made)
        first, second = memory_rigs
        first.driver._area, second.driver._area = (0x1000, 0x20000), (0x40000, 0x20000)
        blks = []
        for made in memory_rigs:
            made.driver.initialise()
            blks.append(BlkDriver(made.driver))
        assert [blk.read(1, 1)[0] for blk in blks] == [0, 0]
        first.mmio.close()
        assert blks[1].read(2, 1)[0] == 0
        second.mmio.close()
        assert "shared" in {thread.name for thread in threading.enumerate()}


def test_no_handler_runs_after_a_reset(rig, scripted):
    """A reset waits for the request in work; at status 0 the buffers are the driver's again."""
    entered, leave = threading.Event(), threading.Event()
    finished = []

    def handle(memory, chain):
        entered.set()
        assert leave.wait(60)
        finished.append(True)
        return 0

    made = rig(scripted(handle))
    made.driver.initialise()
    made.driver.queues[0].request([b"x"], [])
    made.driver.kick(always=True)
    assert entered.wait(60)
    resetter = threading.Thread(target=made.driver.reset)
    resetter.start()
    assert resetter.is_alive()
    leave.set()
    resetter.join(60)
    assert finished == [True]
    assert made.driver.status == 0


def test_threads_end_with_the_transport(rig, scripted):
    """The device's own thread is named after it and gone after close()."""
    made = rig(scripted(zero))
    made.driver.initialise()
    assert "virtio-scripted" in {thread.name for thread in threading.enumerate()}
    made.mmio.close()
    assert "virtio-scripted" not in {thread.name for thread in threading.enumerate()}


def test_queues_have_one_server(rig, scripted):
    """Serving twice, or a queue that does not exist, is a mistake of the device's author."""
    made = rig(scripted(zero))
    made.driver.initialise()
    for index in (0, 1, -1):
        with pytest.raises(TransportStateError, match=f"cannot serve queue {index}"):
            made.device.context.serve_chains(index, zero)
        with pytest.raises(TransportStateError, match=f"cannot serve queue {index}"):
            made.device.context.serve_batches(index, zero)
    with pytest.raises(TransportStateError, match="cannot detach it"):
        made.device.context.detach_queue(1)
    with pytest.raises(TransportStateError, match="cannot attach it"):
        made.device.context.attach_queue(1, made.device.context.detach_queue(0).state)


def test_no_kick_is_lost(rig, scripted):
    """Every request of a long run of single requests is answered, with and without event index."""
    for features in (0, None):
        made = rig(scripted(zero))
        made.driver.initialise(features=features)
        for _ in range(300):
            assert made.driver.request([b"x"], []).written == 0
        made.mmio.close()
