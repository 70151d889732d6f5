"""InterruptStatus of virtio-mmio and the line behind it (VIRTIO 1.2 section 4.2.2)."""

import threading

from vm_device import Interrupt

from virtio_devices._spec import InterruptBit

__all__ = ("MmioInterrupts",)


class MmioInterrupts:
    """InterruptStatus and the line; a bit is set before the edge, so that whoever is woken finds it."""

    def __init__(self, line: Interrupt) -> None:
        self._line = line
        self._lock = threading.Lock()
        self.status = 0

    def _raise(self, bit: InterruptBit) -> None:
        with self._lock:
            self.status |= bit
        self._line.trigger()

    def queue_interrupt(self, index: int) -> None:  # noqa: ARG002 - one line and one bit for all queues
        """Say that a queue has used buffers."""
        self._raise(InterruptBit.USED_BUFFER)

    def config_interrupt(self) -> None:
        """Say that the configuration changed."""
        self._raise(InterruptBit.CONFIG_CHANGE)

    def queue_eventfd(self, index: int) -> int | None:  # noqa: ARG002
        """None: there is no descriptor that would do."""
        # The line's own eventfd would interrupt the driver without setting InterruptStatus.
        return None

    def acknowledge(self, bits: int) -> None:
        """Clear what the driver has seen (InterruptACK)."""
        with self._lock:
            self.status &= ~bits

    def replace(self, status: int) -> None:
        """Take over a saved InterruptStatus, or clear it on a reset."""
        with self._lock:
            self.status = status
