"""ACPI tables for virtual machines: built from one platform description, read back with every check."""

from acpi_tables import aml, arch
from acpi_tables._build import AcpiTables, PlacedTable, build_tables
from acpi_tables._dsdt import dsdt, sleep_package
from acpi_tables._errors import AcpiError, AmlParseError, EncodingError, TableError, UnsupportedPlatformError
from acpi_tables._fadt import BootArch, Fadt, FadtFlags
from acpi_tables._header import GenericAddress, byte_sum, sdt
from acpi_tables._madt import IoApic, LocalApic, LocalApicNmi, Madt, MadtEntry, RawMadtEntry
from acpi_tables._pointers import rsdp, xsdt
from acpi_tables._reader import MAX_TABLE_SIZE, MAX_TABLES, MemoryRead, ParsedTables, parse_tables

__all__ = [
    "MAX_TABLES",
    "MAX_TABLE_SIZE",
    "AcpiError",
    "AcpiTables",
    "AmlParseError",
    "BootArch",
    "EncodingError",
    "Fadt",
    "FadtFlags",
    "GenericAddress",
    "IoApic",
    "LocalApic",
    "LocalApicNmi",
    "Madt",
    "MadtEntry",
    "MemoryRead",
    "ParsedTables",
    "PlacedTable",
    "RawMadtEntry",
    "TableError",
    "UnsupportedPlatformError",
    "aml",
    "arch",
    "build_tables",
    "byte_sum",
    "dsdt",
    "parse_tables",
    "rsdp",
    "sdt",
    "sleep_package",
    "xsdt",
]
