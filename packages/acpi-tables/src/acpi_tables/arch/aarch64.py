"""AArch64: PSCI, the GICv3, the generic timer and a PL011 as the console (Arm BBR, ACPI 6.3)."""

from collections.abc import Sequence

from vm_device.platform import AddressSpace, CpuNode, Platform

from acpi_tables._errors import UnsupportedPlatformError
from acpi_tables._fadt import BootArch
from acpi_tables._gtdt import Gtdt, TimerInterrupt
from acpi_tables._header import GenericAddress
from acpi_tables._madt import Madt, MadtEntry
from acpi_tables._madt_gic import Gicc, Gicd, GicIts, GicRedistributor
from acpi_tables._pptt import Pptt, ProcessorNode
from acpi_tables._spcr import SerialPort, Spcr

__all__ = ("arm_boot_arch", "boot_arch", "madt", "more_tables")

_PSCI, _PSCI_BY_HVC = 1, 2
_PL011 = "ARMH0011"
# Private peripheral interrupts of the timers, and of the PMU, as in Arm's BSA (GSI = 16 + PPI).
_SECURE_EL1, _EL1, _VIRTUAL, _EL2 = 29, 30, 27, 26


def boot_arch(platform: Platform) -> BootArch:  # noqa: ARG001
    """Return no flag: IAPC_BOOT_ARCH is of x86."""
    return BootArch(0)


def arm_boot_arch(platform: Platform) -> int:  # noqa: ARG001
    """Return that processors are started by PSCI, called by HVC (ACPI 6.5 §5.2.9.4)."""
    return _PSCI | _PSCI_BY_HVC


def madt(platform: Platform) -> Madt:
    """Return processors, distributor, redistributors and ITS of a GICv3.

    Args:
        platform: the machine.

    Returns:
        The MADT.

    Raises:
        UnsupportedPlatformError: it has no GIC.

    Source: ACPI 6.3 §5.2.12.14 – §5.2.12.18.
    """
    gic = platform.gic
    if gic is None:
        raise UnsupportedPlatformError("gic", "an AArch64 machine needs one")
    entries: list[MadtEntry] = [Gicc(cpu.index, cpu.hw_id, cpu.online) for cpu in platform.cpus]
    entries += [
        Gicd(gic.distributor.base),
        GicRedistributor(gic.redistributors.base, gic.redistributors.size),
    ]
    if gic.its is not None:
        entries.append(GicIts(0, gic.its.base))
    return Madt(0, tuple(entries))


def more_tables(platform: Platform) -> dict[str, bytes]:
    """Return the GTDT, and what the machine gives reason for.

    Args:
        platform: the machine. A PL011 with HID ``ARMH0011`` makes an SPCR: the first is the console.
            Processors with a place make a PPTT, with dies as groups between package and core.

    Returns:
        Finished tables by signature.

    Source: ACPI 6.3 §5.2.24 and §5.2.29; Arm BBR.
    """
    timers = [
        TimerInterrupt(gsi, active_low=True, always_on=True) for gsi in (_SECURE_EL1, _EL1, _VIRTUAL, _EL2)
    ]
    found = {"GTDT": Gtdt(secure_el1=timers[0], el1=timers[1], virtual=timers[2], el2=timers[3]).encode()}
    for node in platform.devices:
        where = [window for window in node.ranges if window.space is AddressSpace.MMIO]
        if node.hid == _PL011 and where:
            gsi = node.interrupts[0].gsi if node.interrupts else 0
            port = Spcr(SerialPort.PL011, GenericAddress(0, where[0].base, 4), gsi, 115200, gic=True)
            found["SPCR"] = port.encode()
            break
    if platform.cpus[0].place is not None:
        found["PPTT"] = _pptt(platform.cpus).encode()
    return found


def _pptt(cpus: Sequence[CpuNode]) -> Pptt:
    threads = any(cpu.place[3] for cpu in cpus if cpu.place)
    nodes: list[ProcessorNode] = []
    groups: dict[tuple[int, ...], int] = {}
    for cpu in cpus:
        place, parent = cpu.place or (), None
        # Without threads a core is the processor itself, not a group.
        for depth in (1, 2, 3) if threads else (1, 2):
            if place[:depth] not in groups:
                groups[place[:depth]] = len(nodes)
                nodes.append(ProcessorNode(parent=parent, package=depth == 1))
            parent = groups[place[:depth]]
        nodes.append(ProcessorNode(parent=parent, uid=cpu.index, thread=threads, leaf=True))
    return Pptt(tuple(nodes))
