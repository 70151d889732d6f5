"""ACPI tables for virtual machines: built from one platform description, read back with every check."""

from importlib import import_module
from typing import TYPE_CHECKING

from acpi_tables import arch
from acpi_tables._build import AcpiTables, PlacedTable, build_tables
from acpi_tables._dsdt import dsdt, sleep_package
from acpi_tables._errors import (
    AcpiError,
    AmlParseError,
    EncodingError,
    TableError,
    UnsupportedPlatformError,
)
from acpi_tables._fadt import BootArch, Fadt, FadtFlags
from acpi_tables._header import GenericAddress, byte_sum, sdt
from acpi_tables._madt import IoApic, LocalApic, LocalApicNmi, Madt, MadtEntry, RawMadtEntry
from acpi_tables._pointers import rsdp, xsdt

if TYPE_CHECKING:
    from acpi_tables import aml
    from acpi_tables._reader import MAX_TABLE_SIZE, MAX_TABLES, MemoryRead, ParsedTables, parse_tables

__all__ = (
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
)

# A VMM on its way to the first KVM_RUN only builds; the readers and the full builder load when first named.
_READER = frozenset({"MAX_TABLES", "MAX_TABLE_SIZE", "MemoryRead", "ParsedTables", "parse_tables"})


def __getattr__(name: str) -> object:
    """Load what is not needed to build tables (PEP 562)."""
    if name == "aml":
        return import_module("acpi_tables.aml")
    if name in _READER:
        return getattr(import_module("acpi_tables._reader"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
