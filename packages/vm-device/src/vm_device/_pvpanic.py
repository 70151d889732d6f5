"""The pvpanic device, by which a guest says that it panicked (QEMU, docs/specs/pvpanic.rst)."""

import enum
from collections.abc import Callable
from typing import Final

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


class Pvpanic:
    """One byte-wide port: reads name the events it knows, writes report them.

    Bits it does not know are ignored, as the specification asks. It has nothing to save.

    Args:
        on_event: called with the known bits of a write, at least one, in the vCPU's thread; must not block.
    """

    SIZE = 1
    """Ports."""

    def __init__(self, on_event: Callable[[PvpanicEvent], object]) -> None:
        self._on_event = on_event

    def read(self, offset: int, size: int) -> int:
        """Return the known bits; ports behind the first float."""
        floating = (1 << 8 * size) - 1
        return floating & ~0xFF | sum(PvpanicEvent) if offset == 0 else floating

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Report the known bits of the byte at offset 0."""
        known = PvpanicEvent(value & sum(PvpanicEvent)) if offset == 0 else PvpanicEvent(0)
        if known:
            self._on_event(known)

    @staticmethod
    def describe(id: str = "pvpanic", base: int = _PORT) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: one port, ACPI id QEMU0001."""
        where = AddressRange(AddressSpace.PIO, base, Pvpanic.SIZE)
        return DeviceNode(id, "pvpanic", (where,), hid="QEMU0001", compatible=("qemu,pvpanic-mmio",))
