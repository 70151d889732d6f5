"""What Linux on AArch64 asks of firmware before it looks at ACPI: a UEFI system table and a memory map.

There are no services behind it. Source: UEFI 2.10 §4.2, §4.3, §4.6 and §7.2; Documentation/arch/arm/uefi.rst
of Linux, which names the properties of /chosen.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID
from zlib import crc32

from attrs import frozen

from linux_loader._errors import ConfigurationError
from linux_loader._fdt_tree import Fdt, FdtNode, u32s, u64s
from linux_loader._placement import check_ram
from linux_loader._ranges import GuestRange, align_up

__all__ = ("ALIGNMENT", "UefiHandover", "tables_address", "uefi_handover")

ALIGNMENT = 0x1_0000
"""Of the range that is kept for firmware, in bytes: kernels with pages of 64 KiB map it whole."""

_HEADER = struct.Struct("<8sIIII")
_SYSTEM_TABLE = struct.Struct("<QI4x6QQQQQ")
_DESCRIPTOR = struct.Struct("<I4xQQQQ")
_DESCRIPTOR_SIZE = 48  # more than it has: readers are to go by the size they are told
_SIGNATURE = b"IBI SYST"
_REVISION = 2 << 16 | 100
_VENDOR = "linux-loader\0".encode("utf-16-le")
_ACPI_20 = UUID("8868e871-e4f1-11d3-bc22-0080c73c8881").bytes_le
_RT_PROPERTIES = UUID("eb66918a-7eef-402a-842e-931d21c38ae9").bytes_le
# Linux's own: where it notes what a kernel started by kexec must leave alone, such as the GIC's tables.
_MEMRESERVE = UUID("888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2").bytes_le
_NO_SERVICES = struct.pack("<HHI", 1, 8, 0)
_NO_RESERVATIONS = struct.pack("<iiQ", 0, 0, 0)
_CONVENTIONAL, _ACPI_RECLAIM = 7, 9
_WRITE_BACK = 8
_PAGE = 4096
_ROOM = ALIGNMENT


@frozen
class UefiHandover:
    """What tells a kernel of ACPI tables.

    Attributes:
        fdt: For ``load_image``: a tree with nothing in it but ``/chosen``, which makes Linux take ACPI; the
            range kept for firmware is reserved in it.
        address: Where ``blob`` is to be written.
        blob: System table, configuration tables and memory map.
    """

    fdt: Fdt
    address: int
    blob: bytes


def tables_address(address: int) -> int:
    """Return where ACPI tables may begin behind a system table at `address`."""
    return address + _ROOM


def uefi_handover(
    address: int, tables: GuestRange, rsdp: int, ram_ranges: Sequence[tuple[int, int]]
) -> UefiHandover:
    """Make a system table that leads to ACPI tables, and the tree that leads there.

    Args:
        address: For the system table: guest RAM, a multiple of 64 KiB.
        tables: The ACPI tables, right behind it from ``tables_address(address)`` on.
        rsdp: Address of the RSDP.
        ram_ranges: (base, size) of guest RAM, whole pages.

    Returns:
        Tree and tables. What the kernel may use is all RAM but the range from ``address`` to the end of the
        tables, rounded up to 64 KiB.

    Raises:
        ConfigurationError: The range is not aligned, not in order or not in one range of RAM; there are too
            many ranges; or one of them is not of whole pages.
    """
    kept = GuestRange(address, align_up(tables.end, ALIGNMENT) - address)
    ram = check_ram(ram_ranges)
    if address % ALIGNMENT or tables.base < tables_address(address):
        raise ConfigurationError(
            "tables", f"{tables} does not follow a system table at {address:#x}, aligned to {ALIGNMENT:#x}"
        )
    if not any(block.base <= kept.base and kept.end <= block.end for block in ram):
        raise ConfigurationError("tables", f"{kept} is not within one range of RAM")
    memory_map = b"".join(_descriptor(kind, part) for kind, part in _parts(ram, kept))
    blob, map_at = _blob(address, rsdp, memory_map)
    chosen = {
        "linux,uefi-system-table": u64s(address),
        "linux,uefi-mmap-start": u64s(map_at),
        "linux,uefi-mmap-size": u32s(len(memory_map)),
        "linux,uefi-mmap-desc-size": u32s(_DESCRIPTOR_SIZE),
        "linux,uefi-mmap-desc-ver": u32s(1),
        # Distributions' kernels take none of these without it: efi_secureboot_mode_disabled of linux/efi.h.
        "linux,uefi-secure-boot": u32s(2),
    }
    cells = {"#address-cells": u32s(2), "#size-cells": u32s(2)}
    fdt = Fdt(FdtNode("", cells, [FdtNode("chosen", chosen)]), reservations=(kept,))
    return UefiHandover(fdt, address, blob)


def _parts(ram: Sequence[GuestRange], kept: GuestRange) -> list[tuple[int, GuestRange]]:
    found = []
    for block in ram:
        inner = [at for at in (kept.base, kept.end) if block.base < at < block.end]
        for start, end in pairwise((block.base, *inner, block.end)):
            inside = kept.base <= start and end <= kept.end
            found.append((_ACPI_RECLAIM if inside else _CONVENTIONAL, GuestRange(start, end - start)))
    return found


def _descriptor(kind: int, part: GuestRange) -> bytes:
    if part.base % _PAGE or part.size % _PAGE:
        raise ConfigurationError("ram_ranges", f"{part} is not of whole pages ({_PAGE:#x})")
    packed = _DESCRIPTOR.pack(kind, part.base, 0, part.size // _PAGE, _WRITE_BACK)
    return packed.ljust(_DESCRIPTOR_SIZE, b"\0")


def _blob(address: int, rsdp: int, memory_map: bytes) -> tuple[bytes, int]:
    """Return all of it, and where the map is."""
    size = _HEADER.size + _SYSTEM_TABLE.size
    vendor_at = address + size
    services_at = vendor_at + align_up(len(_VENDOR), 8)
    reserve_at = services_at + len(_NO_SERVICES)
    tables_at = reserve_at + len(_NO_RESERVATIONS)
    tables = {_ACPI_20: rsdp, _RT_PROPERTIES: services_at, _MEMRESERVE: reserve_at}
    entries = b"".join(guid + struct.pack("<Q", where) for guid, where in tables.items())
    map_at = tables_at + len(entries)
    # No console, no services; then the configuration tables.
    system = _SYSTEM_TABLE.pack(vendor_at, 0, *[0] * 8, len(tables), tables_at)
    without_sum = _HEADER.pack(_SIGNATURE, _REVISION, size, 0, 0)
    head = _HEADER.pack(_SIGNATURE, _REVISION, size, crc32(without_sum + system), 0)
    vendor = _VENDOR.ljust(services_at - vendor_at, b"\0")
    blob = head + system + vendor + _NO_SERVICES + _NO_RESERVATIONS + entries + memory_map
    if len(blob) > _ROOM:
        problem = f"{len(blob)} bytes of tables and memory map; there is room for {_ROOM}"
        raise ConfigurationError("ram_ranges", problem)
    return blob, map_at
