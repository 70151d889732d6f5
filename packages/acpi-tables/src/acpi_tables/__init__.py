"""ACPI tables for virtual machines: built from one platform description, read back with every check."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acpi_tables import aml, arch
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
    from acpi_tables._gtdt import Gtdt, TimerInterrupt
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
    from acpi_tables._madt_gic import Gicc, Gicd, GicIts, GicMsiFrame, GicRedistributor
    from acpi_tables._pointers import rsdp, xsdt
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

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_build": ("AcpiTables", "PlacedTable", "build_tables"),
    "_dsdt": ("dsdt", "sleep_package"),
    "_errors": ("AcpiError", "AmlParseError", "EncodingError", "TableError", "UnsupportedPlatformError"),
    "_fadt": ("BootArch", "Fadt", "FadtFlags"),
    "_gtdt": ("Gtdt", "TimerInterrupt"),
    "_header": ("GenericAddress", "byte_sum", "sdt"),
    "_madt": (
        "InterruptOverride",
        "IoApic",
        "LocalApic",
        "LocalApicNmi",
        "Madt",
        "MadtEntry",
        "RawMadtEntry",
    ),
    "_madt_gic": ("GicIts", "GicMsiFrame", "GicRedistributor", "Gicc", "Gicd"),
    "_pointers": ("rsdp", "xsdt"),
    "_pptt": ("CacheKind", "CacheNode", "Pptt", "ProcessorNode"),
    "_reader": ("MAX_TABLES", "MAX_TABLE_SIZE", "MemoryRead", "ParsedTables", "parse_tables"),
    "_spcr": ("SerialPort", "Spcr"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a public name."""
        if name in {"aml", "arch"}:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
