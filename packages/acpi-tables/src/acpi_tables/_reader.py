"""Reader that follows RSDP → XSDT → tables → DSDT in untrusted memory, and checks every sum on the way."""

import struct
from collections.abc import Callable, Iterator

import attrs

from acpi_tables._build import PlacedTable
from acpi_tables._errors import TableError
from acpi_tables._fadt import Fadt
from acpi_tables._gtdt import Gtdt
from acpi_tables._header import HEADER, byte_sum
from acpi_tables._madt import Madt
from acpi_tables._pointers import RSDP_SIGNATURE, RSDP_SIZE
from acpi_tables._pptt import Pptt
from acpi_tables._spcr import Spcr

__all__ = ("MAX_TABLES", "MAX_TABLE_SIZE", "MemoryRead", "ParsedTables", "parse_tables")

MemoryRead = Callable[[int, int], bytes]
"""Reads exactly (address, size) bytes of guest memory; ``GuestMemory.read`` of vmm-memory is one."""

MAX_TABLES = 256
"""Most tables that `parse_tables` follows."""
MAX_TABLE_SIZE = 16 << 20
"""Longest table that `parse_tables` reads, in bytes."""


@attrs.frozen
class ParsedTables:
    """Tables found in memory; all their sums are right.

    Attributes:
        rsdp_address: where the search began.
        oem_id: six characters of the RSDP.
        tables: XSDT first, then what it lists, then the DSDT if there is a FADT.
    """

    rsdp_address: int
    oem_id: bytes
    tables: tuple[PlacedTable, ...]

    def table(self, signature: str) -> PlacedTable:
        """Return the first table of that signature; KeyError when there is none."""
        for table in self.tables:
            if table.signature == signature:
                return table
        raise KeyError(signature)

    def fadt(self) -> Fadt:
        """Decode the FADT; KeyError when there is none, TableError when it is too short."""
        found = self.table("FACP")
        return Fadt.decode(found.data, found.address)

    def madt(self) -> Madt:
        """Decode the MADT; KeyError when there is none, TableError when an entry is cut short."""
        found = self.table("APIC")
        return Madt.decode(found.data, found.address)

    def gtdt(self) -> Gtdt:
        """Decode the GTDT; KeyError when there is none, TableError when it says what `Gtdt` cannot."""
        found = self.table("GTDT")
        return Gtdt.decode(found.data, found.address)

    def spcr(self) -> Spcr:
        """Decode the SPCR; KeyError when there is none, TableError when it says what `Spcr` cannot."""
        found = self.table("SPCR")
        return Spcr.decode(found.data, found.address)

    def pptt(self) -> Pptt:
        """Decode the PPTT; KeyError when there is none, TableError when it says what `Pptt` cannot."""
        found = self.table("PPTT")
        return Pptt.decode(found.data, found.address)

    def aml(self) -> bytes:
        """Return the AML of the DSDT, for ``acpi_tables.aml.parse``; KeyError when there is none."""
        return self.table("DSDT").data[HEADER.size :]


def parse_tables(memory_read: MemoryRead, rsdp: int) -> ParsedTables:
    """Read and check the tables a root pointer leads to.

    Args:
        memory_read: how to read guest memory; what it raises passes through.
        rsdp: guest-physical address of the RSDP.

    Returns:
        The tables.

    Raises:
        TableError: a wrong signature, sum, length or revision, more than ``MAX_TABLES`` tables, or one longer
            than ``MAX_TABLE_SIZE``.

    Source: ACPI 6.5 §5.2.5 – §5.2.9.
    """
    root = memory_read(rsdp, RSDP_SIZE)
    _check_root(root, rsdp)
    (xsdt_at,) = struct.unpack_from("<Q", root, 24)
    index = _table(memory_read, xsdt_at, "XSDT")
    listed = [_table(memory_read, address) for address in _entries(index)]
    dsdts = [_table(memory_read, address, "DSDT") for address in _dsdt_addresses(listed)]
    return ParsedTables(rsdp, root[9:15], (index, *listed, *dsdts))


def _check_root(root: bytes, address: int) -> None:
    if root[:8] != RSDP_SIGNATURE:
        raise TableError("RSDP", address, f"signature {root[:8]!r}, not {RSDP_SIGNATURE!r}")
    if root[15] < 2:
        raise TableError("RSDP", address, f"revision {root[15]}; only 2 and later have an XSDT")
    (length,) = struct.unpack_from("<I", root, 20)
    if length != RSDP_SIZE:
        raise TableError("RSDP", address, f"length {length:#x}, not {RSDP_SIZE:#x}")
    for size in (20, RSDP_SIZE):
        if total := byte_sum(root[:size]):
            raise TableError("RSDP", address, f"byte sum of the first {size} is {total:#x}, not 0")


def _table(memory_read: MemoryRead, address: int, signature: str | None = None) -> PlacedTable:
    header = memory_read(address, HEADER.size)
    found = header[:4].decode("latin-1")
    if signature not in (None, found):
        raise TableError(signature or "", address, f"signature {found!r}")
    (length,) = struct.unpack_from("<I", header, 4)
    if not HEADER.size <= length <= MAX_TABLE_SIZE:
        raise TableError(found, address, f"length {length:#x}, not {HEADER.size:#x} to {MAX_TABLE_SIZE:#x}")
    # The header is part of the checked copy: a guest may have changed it since the length was read.
    data = memory_read(address, length)
    if data[: HEADER.size] != header:
        raise TableError(found, address, "header changed while it was read")
    if byte_sum(data):
        raise TableError(found, address, f"byte sum {byte_sum(data):#x}, not 0")
    return PlacedTable(found, address, data)


def _entries(index: PlacedTable) -> tuple[int, ...]:
    count, rest = divmod(len(index.data) - HEADER.size, 8)
    if rest or count > MAX_TABLES:
        raise TableError("XSDT", index.address, f"{count} entries and {rest} bytes; limit {MAX_TABLES} and 0")
    return struct.unpack_from(f"<{count}Q", index.data, HEADER.size)


def _dsdt_addresses(tables: list[PlacedTable]) -> Iterator[int]:
    for table in tables:
        if table.signature == "FACP":
            yield Fadt.decode(table.data, table.address).dsdt
