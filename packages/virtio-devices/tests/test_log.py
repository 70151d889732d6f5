"""Log lines that a guest can cause are rate-limited."""

from virtio_devices._log import GuestLog


def test_a_flood_is_cut_and_counted(caplog):
    """Five lines per period; the first line of the next period says how many are missing."""
    now = [0.0]
    log = GuestLog("disk0", clock=lambda: now[0])
    for number in range(8):
        log.warning("message %d", number)
    now[0] = 10.0
    log.warning("later")
    texts = [record.getMessage() for record in caplog.records]
    assert texts[:5] == [f"disk0: message {number}" for number in range(5)]
    assert texts[5:] == ["disk0: later (3 more messages were suppressed)"]


def test_a_guest_cannot_flood_through_registers(rig, caplog):
    """A thousand bad register writes are at most five lines."""
    from virtio_devices import VirtioRng

    made = rig(VirtioRng("rng0"))
    for _ in range(1000):
        made.driver.write(0x7C, 1)
    assert len(caplog.records) <= 5
