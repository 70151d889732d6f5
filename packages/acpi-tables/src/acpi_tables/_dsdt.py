"""The DSDT: every device of the platform description as AML."""

from collections import Counter
from collections.abc import Iterable, Iterator

from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    InterruptSpec,
    Platform,
    Trigger,
)

from acpi_tables import _resources as res
from acpi_tables._errors import EncodingError, UnsupportedPlatformError
from acpi_tables._header import sdt
from acpi_tables._terms import Aml, Term, device, eisa_id, join, name, package, scope

__all__ = ("dsdt", "sleep_package")

# Revision 2 makes AML integers 64 bits wide (ACPI 6.5 §5.2.11.1).
_REVISION = 2
_MAX_NAMES = 0x1000
_COM_PORTS = "PNP0501"
_LAST_COM = 9
_GENERATION_ID = "VMGENCTR"


def dsdt(platform: Platform) -> bytes:
    r"""Build the DSDT: ``\_S5`` when the machine can sleep, its processors, and every device that has a HID.

    Args:
        platform: the machine.

    Returns:
        The table.

    Raises:
        UnsupportedPlatformError: a HID is malformed, a range does not fit its descriptor, or there are
            more than 4,096 processors or devices.
        EncodingError: the S5 value or a processor index does not fit.
    """
    visible = [node for node in platform.devices if node.hid is not None]
    for what, count in (("cpus", len(platform.cpus)), ("devices", len(visible))):
        if count > _MAX_NAMES:
            raise UnsupportedPlatformError(what, f"{count} of them; at most {_MAX_NAMES} can be named")
    shared = _shared_lines(visible)
    content = [_processor(position, cpu) for position, cpu in enumerate(platform.cpus)]
    content += [built for label, node in _labels(visible) for built in _devices(label, node, shared)]
    sleep = [name("_S5", sleep_package(platform.s5_value))] if platform.sleep_control else []
    return sdt(b"DSDT", _REVISION, join([*sleep, scope("_SB", *content)]))


def sleep_package(value: int) -> Aml:
    r"""Build the value of ``\_S5`` and its siblings.

    Args:
        value: what the guest puts in SLP_TYP of the sleep control register, 0 .. 7.

    Returns:
        A package of four.

    Raises:
        EncodingError: the value does not fit the three bits of SLP_TYP.

    Source: ACPI 6.5 §7.4.2, §4.8.3.7.
    """
    if not 0 <= value <= 7:
        raise EncodingError("SLP_TYP of S5", value, "0 to 7")
    return package(value, 0, 0, 0)


def _shared_lines(nodes: Iterable[DeviceNode]) -> frozenset[int]:
    users = Counter(spec.gsi for node in nodes for spec in node.interrupts)
    return frozenset(gsi for gsi, count in users.items() if count > 1)


def _labels(nodes: list[DeviceNode]) -> Iterator[tuple[str, DeviceNode]]:
    """Name UARTs COM1 to COM9, the traditional names, and everything else by position."""
    ports = 0
    for position, node in enumerate(nodes):
        is_port = node.hid == _COM_PORTS and ports < _LAST_COM
        ports += is_port
        yield (f"COM{ports}" if is_port else f"D{position:03X}"), node


def _processor(position: int, cpu: CpuNode) -> Aml:
    presence = [] if cpu.online else [name("_STA", 0)]
    return device(f"C{position:03X}", name("_HID", "ACPI0007"), name("_UID", cpu.index), *presence)


def _devices(label: str, node: DeviceNode, shared: frozenset[int]) -> tuple[Aml, ...]:
    try:
        lines = [_interrupt(spec, spec.gsi in shared) for spec in node.interrupts]
        if node.hid == _GENERATION_ID:
            from acpi_tables._vmgenid import generation_id  # noqa: PLC0415 - few machines have one

            return generation_id(label, node, lines)
        descriptors = [*map(_range, node.ranges), *lines]
        crs = [name("_CRS", res.resource_template(*descriptors))] if descriptors else []
        return (device(label, name("_HID", _hid(node)), name("_UID", node.uid), name("_CCA", 1), *crs),)
    except EncodingError as error:
        raise UnsupportedPlatformError(node.id, str(error)) from error


def _hid(node: DeviceNode) -> Term:
    """Choose the packed form for 7-character PNP ids, else a string: ``LNRO0005`` and ``ACPI0007`` have 8."""
    hid = node.hid or ""
    if len(hid) == 7:
        return eisa_id(hid)
    if len(hid) == 8 and hid.isalnum() and hid.upper() == hid:
        return hid
    raise UnsupportedPlatformError(
        node.id, f"HID {hid!r} is neither AAA#### (PNP) nor NNNN#### (ACPI), in capitals"
    )


def _range(window: AddressRange) -> bytes:
    if window.space is AddressSpace.PIO:
        if window.size <= 0xFF:
            return res.io_ports(window.base, window.size)
        return res.address_space(res.SpaceKind.IO, window.base, window.size, width=4)
    if window.base + window.size <= 1 << 32:
        return res.memory32_fixed(window.base, window.size)
    return res.address_space(res.SpaceKind.MEMORY, window.base, window.size)


def _interrupt(spec: InterruptSpec, shared: bool) -> bytes:
    edge = spec.trigger is Trigger.EDGE
    return res.interrupt((spec.gsi,), edge=edge, active_low=spec.active_low, shared=shared)
