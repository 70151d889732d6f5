"""An interrupt line as a device sees it, and its eventfd forms."""

import threading
from typing import Protocol

from vm_device._eventfd import EventFd


class Interrupt(Protocol):
    """One line. A device uses `trigger` on edge lines and `set_level` on level lines, never both."""

    def trigger(self) -> None:
        """Send one edge."""
        ...

    def set_level(self, level: bool) -> None:
        """Drive the line; setting the same level twice has no effect."""
        ...

    @property
    def eventfd(self) -> int | None:
        """Descriptor whose write sends an edge, or None when the backend has none."""
        ...


class EventFdInterrupt:
    """An edge line made of an eventfd that a hypervisor consumes (irqfd) or a test reads.

    `set_level` turns each rise into an edge; a fall cannot be sent through an eventfd.
    `ResampledInterrupt` is for lines that have levels.

    Args:
        event: the eventfd; ownership stays with the caller.
    """

    __slots__ = ("_event", "_level")

    def __init__(self, event: EventFd) -> None:
        self._event = event
        self._level = False

    def trigger(self) -> None:
        """Write 1 to the eventfd.

        Raises:
            ClosedError: the eventfd was closed.
        """
        self._event.write(1)

    def set_level(self, level: bool) -> None:
        """Send an edge when the level rises; otherwise only remember it."""
        rose, self._level = level and not self._level, level
        if rose:
            self.trigger()

    @property
    def eventfd(self) -> int | None:
        """The eventfd's descriptor."""
        return self._event.fd


class ResampledInterrupt:
    """A level line made of two eventfds, as resampling irqfds and VFIO's INTx have it; implements Interrupt.

    A write to `eventfd` raises the line. When the guest ends the interrupt, the interrupt controller lowers
    the line and writes `resamplefd`; then whoever drives the line looks at its cause, and raises it again if
    that is still up (KVM_IRQFD_FLAG_RESAMPLE, Documentation/virt/kvm/api.rst 4.75). The controller may also
    ask when no interrupt has ended. A device outside the VMM is given both descriptors (VFIO: trigger and
    unmask of INTx). One inside calls `set_level`, and its event loop `resample`:
    `events.add(line.resamplefd, line.resample)`.

    Args:
        event: written to raise the line; ownership stays with the caller.
        resampled: written by the controller; likewise.
    """

    __slots__ = ("_event", "_level", "_lock", "_resampled")

    def __init__(self, event: EventFd, resampled: EventFd) -> None:
        self._event, self._resampled = event, resampled
        self._level = False
        self._lock = threading.Lock()  # a fall must not come between a look at the level and its write

    def trigger(self) -> None:
        """Raise the line until the guest has ended one interrupt, whatever the level.

        Raises:
            ClosedError: the eventfd was closed.
        """
        self._event.write()

    def set_level(self, level: bool) -> None:
        """Raise the line, or let it stay low from the next end of an interrupt on; from any thread.

        Raises:
            ClosedError: the level rises and the eventfd was closed.
        """
        with self._lock:
            rises, self._level = level and not self._level, level
            if rises:
                self._event.write()

    def resample(self, _events: int = 0) -> None:
        """Take what `resamplefd` has to say, and raise the line again if its level is up; from any thread.

        Raises:
            ClosedError: an eventfd was closed.
        """
        with self._lock:
            if self._resampled.read() is not None and self._level:
                self._event.write()

    @property
    def eventfd(self) -> int:
        """Descriptor whose write raises the line; raises ClosedError after its owner closed it."""
        return self._event.fd

    @property
    def resamplefd(self) -> int:
        """Descriptor that is readable when the cause has to be looked at; raises as `eventfd`."""
        return self._resampled.fd
