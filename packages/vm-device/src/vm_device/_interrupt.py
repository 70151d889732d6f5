"""An interrupt line as a device sees it, and its eventfd form."""

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

    `set_level` turns each rise into an edge; a fall cannot be sent through an irqfd without resampling.

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
