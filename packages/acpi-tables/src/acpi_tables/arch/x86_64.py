"""x86-64: boot architecture flags and the APICs."""

from vm_device.platform import Platform

from acpi_tables._fadt import BootArch
from acpi_tables._madt import IoApic, LocalApic, LocalApicNmi, Madt, MadtEntry

__all__ = ("arm_boot_arch", "boot_arch", "madt", "more_tables")

_I8042_HIDS = frozenset({"PNP0303", "PNP0F13"})
_RTC_HID = "PNP0B00"


def boot_arch(platform: Platform) -> BootArch:
    """Return IAPC_BOOT_ARCH: what a guest may probe is what the platform lists, and nothing else.

    An i8042 or a CMOS RTC is announced only when a device node carries its HID (PNP0303 or PNP0F13;
    PNP0B00): a guest that is told of an i8042 polls it for seconds when it does not answer, and one
    told of an RTC reads it through slow port exits although kvm-clock has already given it the time.

    Args:
        platform: the machine.

    Returns:
        The flags; VGA is never announced.

    Source: ACPI 6.5 §5.2.9.3.
    """
    hids = {device.hid for device in platform.devices}
    flags = BootArch.NO_VGA
    if hids & _I8042_HIDS:
        flags |= BootArch.I8042
    if _RTC_HID not in hids:
        flags |= BootArch.NO_CMOS_RTC
    return flags


def arm_boot_arch(platform: Platform) -> int:  # noqa: ARG001
    """Return 0: the field says nothing on x86."""
    return 0


def madt(platform: Platform) -> Madt:
    """Return processors, I/O APICs and the NMI line (LINT1 of every processor).

    No 8259 is announced, so that a guest does not probe for one.

    Args:
        platform: the machine.

    Returns:
        The MADT, in the order processors, I/O APICs, NMI.

    Source: ACPI 6.5 §5.2.12.
    """
    cpus = [LocalApic(cpu.index, cpu.hw_id, cpu.online) for cpu in platform.cpus]
    entries: list[MadtEntry] = [*cpus]
    entries += [IoApic(chip.id, chip.address, chip.gsi_base) for chip in platform.ioapics]
    entries += [LocalApicNmi(x2apic=kind) for kind in sorted({cpu.is_x2apic for cpu in cpus})]
    return Madt(platform.lapic_address, tuple(entries))


def more_tables(platform: Platform) -> dict[str, bytes]:  # noqa: ARG001
    """Return nothing: FADT, MADT and DSDT are all."""
    return {}
