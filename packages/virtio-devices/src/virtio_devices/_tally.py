"""What the queues of a device count."""

import attrs
from virtio_queue import QueueCounters, VirtQueue

__all__ = ("QueueStats", "QueueTally")


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
