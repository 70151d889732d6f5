"""Which ring features a transport offers for a device, and what its queues count."""

import attrs
from virtio_queue import QueueCounters, VirtQueue

from virtio_devices._spec import Feature

__all__ = ("QueueStats", "QueueTally", "RingOptions")


@attrs.frozen
class RingOptions:
    """What a driver may negotiate about the rings; the names and defaults are QEMU's.

    Attributes:
        packed: VIRTIO_F_RING_PACKED, one ring of descriptors that both sides write, in place of three.
        event_idx: VIRTIO_F_EVENT_IDX, each side names the entry at which it wants to be notified.
        indirect_desc: VIRTIO_F_INDIRECT_DESC, tables of descriptors outside the ring.
        in_order: VIRTIO_F_IN_ORDER, requests are answered in the order in which they came. The devices of
            this package do so; offer it for a device of your own only if it does.
        notification_data: VIRTIO_F_NOTIFICATION_DATA, a notification says how far the driver has come. Those
            that say so do not match an ioeventfd: each is an exit.
        queue_reset: VIRTIO_F_RING_RESET, one queue can be reset alone.
    """

    packed: bool = False
    event_idx: bool = True
    indirect_desc: bool = True
    in_order: bool = False
    notification_data: bool = False
    queue_reset: bool = True

    @property
    def features(self) -> Feature:
        """The bits to offer."""
        chosen = Feature(0)
        for name, bit in _BITS.items():
            if getattr(self, name):
                chosen |= bit
        return chosen


_BITS = {
    "packed": Feature.RING_PACKED,
    "event_idx": Feature.EVENT_IDX,
    "indirect_desc": Feature.INDIRECT_DESC,
    "in_order": Feature.IN_ORDER,
    "notification_data": Feature.NOTIFICATION_DATA,
    "queue_reset": Feature.RING_RESET,
}


@attrs.frozen
class QueueStats:
    """What one queue of a device did since the device was made, over all resets.

    Attributes:
        chains: requests answered.
        tables: of them: in an indirect table; those given back and taken again count again.
        wraps: times that the used position passed the end of the ring.
        interrupts: decisions to interrupt the driver.
        interrupts_suppressed: decisions not to, because the driver did not want to know of these requests.
        kicks: notifications by the driver.
        kicks_suppressed: times that requests came unannounced while the device had asked for silence.
    """

    chains: int
    tables: int
    wraps: int
    interrupts: int
    interrupts_suppressed: int
    kicks: int
    kicks_suppressed: int


@attrs.define
class QueueTally:
    """What outlives the resets of one queue; changed on its device thread, or while that serves it not.

    Attributes:
        kicks: notifications by the driver, less those of the device itself; may be negative for a moment.
        unannounced: times that requests came while the device had asked for silence.
        earlier: what the queue counted before its last reset.
    """

    kicks: int = 0
    unannounced: int = 0
    earlier: QueueCounters = attrs.Factory(QueueCounters)

    def retire(self, queue: VirtQueue) -> None:
        """Keep what a queue counted that is about to be reset or replaced."""
        self.earlier += queue.counters

    def stats(self, queue: VirtQueue) -> QueueStats:
        """Everything so far."""
        sum_ = self.earlier + queue.counters
        return QueueStats(
            chains=sum_.chains,
            tables=sum_.tables,
            wraps=sum_.wraps,
            interrupts=sum_.notified,
            interrupts_suppressed=sum_.suppressed,
            kicks=max(self.kicks, 0),
            kicks_suppressed=self.unannounced,
        )
