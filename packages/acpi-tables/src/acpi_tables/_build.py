"""All tables of a machine, placed one behind the other."""

import attrs
from vm_device import Value
from vm_device.platform import AddressRange, AddressSpace, Platform

from acpi_tables._dsdt import dsdt
from acpi_tables._errors import EncodingError, UnsupportedPlatformError
from acpi_tables._fadt import Fadt
from acpi_tables._header import GenericAddress
from acpi_tables._pointers import RSDP_SIZE, rsdp, xsdt
from acpi_tables.arch import ArchTables, for_arch

__all__ = ("AcpiTables", "PlacedTable", "build_tables")

_ALIGNMENT = 16
_PM_TIMER = "pm-timer"


@attrs.frozen(eq=False, repr=False)
class PlacedTable(Value):
    """Where one table is.

    Attributes:
        signature: its four characters, such as ``"APIC"``.
        address: guest-physical address.
        data: the whole table.
    """

    signature: str
    address: int
    data: bytes


@attrs.frozen(eq=False, repr=False)
class AcpiTables(Value):
    """Finished tables, ready to be copied into guest memory.

    Attributes:
        blob: every byte, RSDP included.
        address: guest-physical address the blob must be written to.
        rsdp_address: what the boot protocol passes on (boot_params, PVH start_info).
        tables: each table but the RSDP, in the order of their addresses.
    """

    blob: bytes
    address: int
    rsdp_address: int
    tables: tuple[PlacedTable, ...]

    @property
    def end(self) -> int:
        """Guest-physical address after the last byte; keep ``address .. end`` out of the guest's RAM map."""
        return self.address + len(self.blob)

    def table(self, signature: str) -> PlacedTable:
        """Return the first table of that signature; KeyError when there is none."""
        for table in self.tables:
            if table.signature == signature:
                return table
        raise KeyError(signature)


def build_tables(platform: Platform, address: int) -> AcpiTables:
    """Build RSDP, XSDT, FADT, MADT and DSDT of a machine; on AArch64 GTDT, SPCR and PPTT too.

    The RSDP comes first. Below 1 MiB, within 0xe0000 .. 0xfffff, a guest finds it by itself; elsewhere
    tell it through the boot protocol.

    Args:
        platform: the machine.
        address: guest-physical address for the blob, a multiple of 16.

    Returns:
        The tables.

    Raises:
        UnsupportedPlatformError: ACPI cannot express the platform.
        EncodingError: the address is not aligned, or a value does not fit its field.

    Source: ACPI 6.5 §5.2; hardware-reduced as of §4.1.
    """
    if address < 0 or address % _ALIGNMENT:
        raise EncodingError("address of the tables", address, f"a multiple of {_ALIGNMENT}, not negative")
    arch = for_arch(platform.arch)
    layout = _Layout(address)
    layout.skip(RSDP_SIZE)
    dsdt_at = layout.place("DSDT", dsdt(platform))
    fadt_at = layout.place("FACP", _fadt(platform, dsdt_at, arch).encode())
    madt_at = layout.place("APIC", arch.madt(platform).encode())
    more = [layout.place(signature, data) for signature, data in arch.more_tables(platform).items()]
    xsdt_at = layout.place("XSDT", xsdt((fadt_at, madt_at, *more)))
    return layout.finish(rsdp(xsdt_at))


class _Layout:
    """Tables placed so far; each starts at a multiple of 16."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.blob = bytearray()
        self.tables: list[PlacedTable] = []

    def skip(self, size: int) -> None:
        """Leave room for `size` bytes that are known only at the end."""
        self.blob += bytes(size + -size % _ALIGNMENT)

    def place(self, signature: str, data: bytes) -> int:
        """Put a table next; return its address."""
        address = self.address + len(self.blob)
        self.tables.append(PlacedTable(signature, address, data))
        self.blob += data + bytes(-len(data) % _ALIGNMENT)
        return address

    def finish(self, root: bytes) -> AcpiTables:
        """Write the RSDP into the room that was left, and give the whole."""
        self.blob[: len(root)] = root
        return AcpiTables(bytes(self.blob), self.address, self.address, tuple(self.tables))


def _fadt(platform: Platform, dsdt_at: int, arch: ArchTables) -> Fadt:
    reset = platform.reset
    timers = [node.ranges[0] for node in platform.devices if node.name == _PM_TIMER and node.ranges]
    return Fadt(
        dsdt=dsdt_at,
        boot_arch=arch.boot_arch(platform),
        arm_boot_arch=arch.arm_boot_arch(platform),
        reset=_register("reset", reset.range if reset else None),
        reset_value=reset.value if reset else 0,
        sleep_control=_register("sleep_control", platform.sleep_control),
        sleep_status=_register("sleep_status", platform.sleep_status),
        pm_timer=_register(_PM_TIMER, timers[0] if timers else None, 4),
    )


def _register(field: str, window: AddressRange | None, size: int = 1) -> GenericAddress | None:
    if window is None:
        return None
    if window.size != size:
        wanted = "one byte" if size == 1 else f"{size} bytes"
        raise UnsupportedPlatformError(
            field, f"{window.size:#x} bytes at {window.base:#x}; ACPI wants {wanted}"
        )
    return GenericAddress(int(window.space is AddressSpace.PIO), window.base, window.size)
