"""The pvpanic device, by which a guest says that it panicked (QEMU, docs/specs/pvpanic.rst)."""

import enum
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

_PORT: Final = 0x505


class PvpanicEvent(enum.IntFlag):
    """What a guest can say, a bit each."""

    PANICKED = 1
    """It panicked, and the host is to deal with it."""
    CRASH_LOADED = 2
    """It panicked and deals with it itself (a crash kernel is loaded): the host only takes note."""
    SHUTDOWN = 4
    """It shut down in good order."""


_ALL: Final = PvpanicEvent(sum(PvpanicEvent))


class Pvpanic:
    """One byte-wide port: reads name the events it knows, writes report them.

    Bits it does not know are ignored, as the specification asks.

    Args:
        on_event: called with the known bits of a write, at least one, in the vCPU's thread; must not block.
        events: what it knows, and tells the guest that it knows.
    """

    SIZE = 1
    """Ports."""

    def __init__(self, on_event: Callable[[PvpanicEvent], object], *, events: PvpanicEvent = _ALL) -> None:
        self._on_event = on_event
        self._events = events

    def read(self, offset: int, size: int) -> int:
        """Return the known bits; ports behind the first float."""
        floating = (1 << 8 * size) - 1
        return floating & ~0xFF | int(self._events) if offset == 0 else floating

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Report the known bits of the byte at offset 0."""
        known = PvpanicEvent(value & self._events) if offset == 0 else PvpanicEvent(0)
        if known:
            self._on_event(known)

    def state(self) -> "vm_device.PvpanicState":
        """Return the saved state."""
        return vm_device.PvpanicState(int(self._events))

    @classmethod
    def from_state(
        cls, state: "vm_device.PvpanicState", on_event: Callable[[PvpanicEvent], object]
    ) -> "Pvpanic":
        """Rebuild the port; it knows what the guest was told, whatever a newer one knows.

        Raises:
            SavedStateError: unknown version, or events that are not in the specification.
        """
        check_saved(state, events=int(_ALL))
        return cls(on_event, events=PvpanicEvent(state.events))

    @staticmethod
    def describe(id: str = "pvpanic", base: int = _PORT) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: one port, ACPI id QEMU0001."""
        where = AddressRange(AddressSpace.PIO, base, Pvpanic.SIZE)
        return DeviceNode(id, "pvpanic", (where,), hid="QEMU0001", compatible=("qemu,pvpanic-mmio",))
