"""Ring features as a choice for any device, and what its queues count."""

import itertools

import pytest
from virtio_devices import Feature, MmioRegister, QueueStats, RingOptions, Status, VirtioRng

FLAGS = {
    "packed": Feature.RING_PACKED,
    "event_idx": Feature.EVENT_IDX,
    "indirect_desc": Feature.INDIRECT_DESC,
    "in_order": Feature.IN_ORDER,
    "notification_data": Feature.NOTIFICATION_DATA,
    "queue_reset": Feature.RING_RESET,
}
CHOICES = [RingOptions(**dict(zip(FLAGS, on, strict=True))) for on in itertools.product([0, 1], repeat=6)]


@pytest.fixture
def packed():
    """Here the driver takes what it is told to, and no more."""
    return


def test_the_defaults_are_those_of_qemu():
    """EVENT_IDX, INDIRECT_DESC and RING_RESET; not RING_PACKED, IN_ORDER, NOTIFICATION_DATA."""
    assert RingOptions().features == Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.RING_RESET


@pytest.mark.parametrize("rings", CHOICES, ids=lambda rings: f"{rings.features:#x}")
def test_every_choice_is_offered_negotiated_and_works(rig, rings):
    """A driver that takes all that is offered gets its requests answered, whatever that is."""
    made = rig(VirtioRng("rng0"), rings=rings)
    agreed = made.driver.initialise(features=int(rings.features))
    assert agreed == made.driver.offered_features() == rings.features | Feature.VERSION_1
    for name, bit in FLAGS.items():
        assert bool(agreed & bit) == getattr(rings, name)
    for _ in range(3):
        assert len(made.driver.request([], [9, 7], indirect=bool(rings.indirect_desc)).data[1]) == 7
    (stats,) = made.mmio.queue_stats()
    assert (stats.chains, stats.tables) == (3, 3 * rings.indirect_desc)


def test_what_is_not_offered_cannot_be_had(rig):
    """A driver that takes EVENT_IDX all the same does not get FEATURES_OK."""
    driver = rig(VirtioRng("rng0"), rings=RingOptions(event_idx=False)).driver
    driver.reset()
    driver.add_status(Status.ACKNOWLEDGE)
    driver.add_status(Status.DRIVER)
    driver._accept_features(Feature.VERSION_1 | Feature.EVENT_IDX)
    driver.add_status(Status.FEATURES_OK)
    assert driver.status == Status.ACKNOWLEDGE | Status.DRIVER


def test_notification_data_names_the_queue_in_its_lower_half(rig):
    """The upper half says how far the driver is; without the feature such a value names no queue."""
    made = rig(VirtioRng("rng0"), rings=RingOptions(notification_data=True))
    made.driver.initialise(features=int(Feature.NOTIFICATION_DATA))
    made.driver.request([], [4])
    assert made.driver.request([], [4]).written == 4
    made.driver.initialise(features=0)
    made.driver.queues[0].request([], [4])
    before = made.mmio.queue_stats()[0].kicks
    made.driver.write(MmioRegister.QUEUE_NOTIFY, 1 << 16)
    made.mmio.pause()
    made.mmio.resume()
    made.driver.wait()
    assert made.mmio.queue_stats()[0].kicks == before


def test_counters_outlive_resets(rig):
    """Kicks, chains, interrupts and wraps of one queue, over a queue reset and a device reset."""
    made = rig(VirtioRng("rng0"))
    driver = made.driver
    assert made.mmio.queue_stats() == (QueueStats(0, 0, 0, 0, 0, 0, 0),)
    sent = 0
    for _ in range(2):
        driver.initialise(features=int(Feature.RING_RESET), size=4)
        for _ in range(2):
            for _ in range(5):
                driver.queues[0].request([], [1])
                sent += driver.kick(always=True)
                driver.wait()
            driver.write(MmioRegister.QUEUE_RESET, 1)
            driver.set_up_queue(0, size=4)
    (stats,) = made.mmio.queue_stats()
    assert (stats.chains, stats.wraps) == (20, 4)
    assert sent - 4 <= stats.kicks <= sent  # a reset forgets a kick that came late
    assert stats.interrupts + stats.interrupts_suppressed == 20
    assert stats.interrupts == made.line.edges


def test_interrupts_that_nobody_wants_are_counted_as_suppressed(rig):
    """A driver that polls: no interrupts, and each decision against one is counted."""
    made = rig(VirtioRng("rng0"))
    made.driver.initialise(features=0)
    made.driver.queues[0].disable_interrupts()
    for count in range(1, 4):
        made.driver.queues[0].request([], [1])
        made.driver.kick(always=True)
        while made.mmio.queue_stats()[0].interrupts_suppressed < count:
            pass
    assert made.mmio.queue_stats()[0].interrupts == made.line.edges == 0


@pytest.mark.parametrize("event_idx", [False, True])
def test_requests_that_come_while_the_device_works_need_no_kick(rig, event_idx):
    """They are found before the device sleeps, and the count says how often."""

    class Busy:
        """Answers a request while the driver adds the next one."""

        id, device_id, features, queue_sizes = "busy", 77, 0, (8,)

        def activate(self, context):
            context.serve_batches(0, self.answer, max_chains=8)

        def answer(self, memory, batch):
            for _ in range(len(batch)):
                if self.left:
                    self.left -= 1
                    self.driver.queues[0].request([b"x"])
                    self.kicks += self.driver.kick()
            return True

        left, kicks = 6, 0
        describe = state = dict
        reset = close = restore = lambda self: None

        def read_config(self, offset, size):
            return b""

    made = rig(Busy())
    made.device.driver = made.driver
    made.driver.initialise(features=int(Feature.EVENT_IDX) if event_idx else 0)
    made.driver.queues[0].request([b"x"])
    announced = made.driver.kick()  # not if the device's first look at its ring has found it
    made.driver.wait(count=7)
    made.mmio.pause()
    (stats,) = made.mmio.queue_stats()
    assert (stats.chains, made.device.kicks) == (7, 0)
    assert stats.kicks <= announced
    assert 6 <= stats.kicks_suppressed <= 7
