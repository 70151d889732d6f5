"""The MADT and its entries (ACPI 6.5 §5.2.12)."""

import struct
from collections.abc import Sequence
from typing import Protocol

import attrs
from vm_device import Value

from acpi_tables._errors import TableError
from acpi_tables._header import HEADER, packed, sdt

__all__ = (
    "InterruptOverride",
    "IoApic",
    "LocalApic",
    "LocalApicNmi",
    "Madt",
    "MadtEntry",
    "RawMadtEntry",
)

_REVISION = 5
_PREFIX = struct.Struct("<II")
_LAPIC, _X2APIC = struct.Struct("<BBBBI"), struct.Struct("<BBHIII")
_RAW = struct.Struct("<BB")
_IOAPIC = struct.Struct("<BBBBII")
_OVERRIDE = struct.Struct("<BBBBIH")
_NMI, _X2NMI = struct.Struct("<BBBHB"), struct.Struct("<BBHIB3x")
_ENABLED, _ONLINE_CAPABLE = 1, 2
_LAST_XAPIC_ID = 254


class MadtEntry(Protocol):
    """Any entry of a MADT."""

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""


@attrs.frozen(eq=False, repr=False)
class LocalApic(Value):
    """A processor: xAPIC entry (type 0) while uid and id are at most 254, x2APIC entry (type 9) beyond.

    Attributes:
        uid: ``_UID`` of the processor device, 0 .. 2**32 - 1.
        apic_id: local APIC id, 0 .. 2**32 - 1.
        online: enabled now; otherwise it may be enabled later (hot-plug).
    """

    uid: int
    apic_id: int
    online: bool = True

    @property
    def is_x2apic(self) -> bool:
        """Whether the one-byte ids of the xAPIC entry are too narrow."""
        return max(self.uid, self.apic_id) > _LAST_XAPIC_ID

    def encode(self) -> bytes:
        """Return the entry; EncodingError when an id leaves 32 bits."""
        flags = _ENABLED if self.online else _ONLINE_CAPABLE
        if self.is_x2apic:
            return packed("x2APIC id", self.apic_id, _X2APIC, 9, 16, 0, self.apic_id, flags, self.uid)
        return packed("APIC id", self.apic_id, _LAPIC, 0, 8, self.uid, self.apic_id, flags)


@attrs.frozen(eq=False, repr=False)
class IoApic(Value):
    """An I/O APIC (type 1).

    Attributes:
        id: I/O APIC id, 0 .. 255.
        address: guest-physical address below 4 GiB.
        gsi_base: global system interrupt of its first pin.
    """

    id: int
    address: int
    gsi_base: int = 0

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""
        return packed("I/O APIC", self.address, _IOAPIC, 1, 12, self.id, 0, self.address, self.gsi_base)


@attrs.frozen(eq=False, repr=False)
class InterruptOverride(Value):
    """An ISA interrupt that is not wired to the pin of its number (type 2).

    Attributes:
        irq: ISA interrupt, 0 .. 15.
        gsi: global system interrupt it is.
        edge: edge triggered, else level.
        active_low: active low, else high.
    """

    irq: int
    gsi: int
    edge: bool = True
    active_low: bool = False

    def encode(self) -> bytes:
        """Return the entry; EncodingError when a field does not fit."""
        flags = (3 if self.active_low else 1) | (1 if self.edge else 3) << 2
        return packed("ISA interrupt", self.irq, _OVERRIDE, 2, 10, 0, self.irq, self.gsi, flags)


@attrs.frozen(eq=False, repr=False)
class LocalApicNmi(Value):
    """The NMI line of all processors: type 4, or type 10 for x2APIC processors.

    Attributes:
        lint: local interrupt input, 0 or 1.
        x2apic: which of the two entry types.
    """

    lint: int = 1
    x2apic: bool = False

    def encode(self) -> bytes:
        """Return the entry; EncodingError when lint leaves its byte."""
        if self.x2apic:
            return packed("LINT", self.lint, _X2NMI, 10, 12, 0, 0xFFFF_FFFF, self.lint)
        return packed("LINT", self.lint, _NMI, 4, 6, 0xFF, 0, self.lint)


@attrs.frozen(eq=False, repr=False)
class RawMadtEntry(Value):
    """An entry of a type this package does not model, or of an unexpected length.

    Attributes:
        type: entry type, 0 .. 255.
        body: bytes after type and length, at most 253.
    """

    type: int
    body: bytes

    def encode(self) -> bytes:
        """Return the entry; EncodingError when type or length leave their byte."""
        return packed("MADT entry type", self.type, _RAW, self.type, len(self.body) + 2) + self.body


@attrs.frozen(eq=False, repr=False)
class Madt(Value):
    """What the MADT says.

    Attributes:
        local_apic: guest-physical address of the local APICs, below 4 GiB; 0 on Arm.
        entries: its entries in order.
        flags: bit 0 says that there are also two 8259s to be masked.
    """

    local_apic: int
    entries: tuple[MadtEntry, ...]
    flags: int = 0

    def encode(self) -> bytes:
        """Build the table; EncodingError when a field does not fit."""
        prefix = packed("local APIC address", self.local_apic, _PREFIX, self.local_apic, self.flags)
        return sdt(b"APIC", _REVISION, prefix + b"".join(entry.encode() for entry in self.entries))

    @classmethod
    def decode(cls, table: bytes, address: int = 0) -> "Madt":
        """Read a MADT.

        Args:
            table: the whole table.
            address: where it was found, for the error only.

        Returns:
            Every entry; what is not modelled comes as RawMadtEntry.

        Raises:
            TableError: the table or an entry is cut short, or an entry is shorter than its own header.
        """
        at = HEADER.size + _PREFIX.size
        if len(table) < at:
            raise TableError("APIC", address, f"{len(table):#x} bytes, less than {at:#x}")
        local_apic, flags = _PREFIX.unpack_from(table, HEADER.size)
        entries: list[MadtEntry] = []
        while at < len(table):
            size = table[at + 1] if at + 1 < len(table) else 0
            if size < 2 or at + size > len(table):
                reason = f"entry at {at:#x} of {size:#x} bytes, but the table ends at {len(table):#x}"
                raise TableError("APIC", address, reason)
            entries.append(_entry(table[at : at + size]))
            at += size
        return cls(local_apic, tuple(entries), flags)


def _entry(data: bytes) -> MadtEntry:
    for entry in _candidates(data):
        if entry.encode() == data:
            return entry
    return RawMadtEntry(data[0], data[2:])


def _candidates(data: bytes) -> Sequence[MadtEntry]:  # noqa: PLR0911
    """Guess typed entries; only one that encodes back to the same bytes is believed."""
    match data[0], len(data):
        case 0, 8:
            return [LocalApic(data[2], data[3], bool(data[4] & _ENABLED))]
        case 9, 16:
            _, _, _, apic_id, flags, uid = _X2APIC.unpack(data)
            return [LocalApic(uid, apic_id, bool(flags & _ENABLED))]
        case 1, 12:
            return [IoApic(data[2], *_IOAPIC.unpack(data)[4:])]
        case 2, 10:
            _, _, _, irq, gsi, flags = _OVERRIDE.unpack(data)
            return [InterruptOverride(irq, gsi, edge=flags >> 2 == 1, active_low=flags & 3 == 3)]
        case 4, 6:
            return [LocalApicNmi(data[5])]
        case 10, 12:
            return [LocalApicNmi(data[8], x2apic=True)]
        case ((11 | 12 | 13 | 14 | 15), _):
            from acpi_tables._madt_gic import gic_candidates  # noqa: PLC0415 - a VMM on x86 starts without

            return gic_candidates(data)
    return []
