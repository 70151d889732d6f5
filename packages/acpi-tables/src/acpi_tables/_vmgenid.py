"""The generation ID of a machine, and what notifies a guest of a new one; loaded when a machine has one."""

from collections.abc import Sequence

from vm_device.platform import DeviceNode

from acpi_tables import _resources as res
from acpi_tables._errors import UnsupportedPlatformError
from acpi_tables._methods import method, notify
from acpi_tables._terms import Aml, device, name, package

__all__ = ("generation_id",)

# Linux looks for this, in capitals; the specification gives it as it is here.
_COMPATIBLE = "VM_Gen_Counter"
_CHANGED = 0x80


def generation_id(label: str, node: DeviceNode, lines: Sequence[bytes]) -> tuple[Aml, ...]:
    r"""Build the device, and for its interrupts a generic event device that notifies it.

    Args:
        label: its name in ``\_SB``, four characters.
        node: the device; its property ``address`` is where the 16 bytes are.
        lines: a descriptor for each interrupt.

    Returns:
        One device, or two.

    Raises:
        UnsupportedPlatformError: no address, or one beyond 64 bits.

    Source: Microsoft, "Virtual Machine Generation ID", August 2012; ACPI 6.5 §5.6.9.
    """
    address = node.properties.get("address")
    if not isinstance(address, int) or not 0 <= address < 1 << 64:
        raise UnsupportedPlatformError(node.id, f"address {address!r}; a generation ID needs one of 64 bits")
    counter = device(
        label,
        name("_HID", node.hid or ""),
        name("_UID", node.uid),
        name("_CID", _COMPATIBLE),
        name("_DDN", _COMPATIBLE),
        name("ADDR", package(address & 0xFFFF_FFFF, address >> 32)),
    )
    if not lines:
        return (counter,)
    events = device(
        f"G{label[1:]}",
        name("_HID", "ACPI0013"),
        name("_UID", node.uid),
        name("_CRS", res.resource_template(*lines)),
        method("_EVT", 1, notify(label, _CHANGED), serialized=True),
    )
    return counter, events
