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
from acpi_tables._madt import (
    InterruptOverride,
    IoApic,
    LocalApic,
    LocalApicNmi,
    Madt,
    MadtEntry,
    RawMadtEntry,
)
from acpi_tables._pointers import rsdp, xsdt

if TYPE_CHECKING:
    from acpi_tables import aml
    from acpi_tables._gtdt import Gtdt, TimerInterrupt
    from acpi_tables._madt_gic import Gicc, Gicd, GicIts, GicMsiFrame, GicRedistributor
    from acpi_tables._pptt import CacheKind, CacheNode, Pptt, ProcessorNode
    from acpi_tables._reader import MAX_TABLE_SIZE, MAX_TABLES, MemoryRead, ParsedTables, parse_tables
    from acpi_tables._spcr import SerialPort, Spcr

__all__ = (
    "MAX_TABLES",
    "MAX_TABLE_SIZE",
    "AcpiError",
    "AcpiTables",
    "AmlParseError",
    "BootArch",
    "CacheKind",
    "CacheNode",
    "EncodingError",
    "Fadt",
    "FadtFlags",
    "GenericAddress",
    "GicIts",
    "GicMsiFrame",
    "GicRedistributor",
    "Gicc",
    "Gicd",
    "Gtdt",
    "InterruptOverride",
    "IoApic",
    "LocalApic",
    "LocalApicNmi",
    "Madt",
    "MadtEntry",
    "MemoryRead",
    "ParsedTables",
    "PlacedTable",
    "Pptt",
    "ProcessorNode",
    "RawMadtEntry",
    "SerialPort",
    "Spcr",
    "TableError",
    "TimerInterrupt",
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

# A VMM on its way to the first KVM_RUN only builds; what it does not need for that loads when first named.
_LATER = {
    "_gtdt": ("Gtdt", "TimerInterrupt"),
    "_madt_gic": ("GicIts", "GicMsiFrame", "GicRedistributor", "Gicc", "Gicd"),
    "_pptt": ("CacheKind", "CacheNode", "Pptt", "ProcessorNode"),
    "_reader": ("MAX_TABLES", "MAX_TABLE_SIZE", "MemoryRead", "ParsedTables", "parse_tables"),
    "_spcr": ("SerialPort", "Spcr"),
}
_HOMES = {name: f"acpi_tables.{module}" for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is not needed to build tables (PEP 562)."""
    if name == "aml":
        return import_module("acpi_tables.aml")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
