"""The zero page (struct boot_params of <asm/bootparam.h>) and the setup_data list behind it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from linux_loader._e820 import E820_MAX_ENTRIES, E820Entry
from linux_loader._ranges import GuestRange

ZERO_PAGE_SIZE = 4096
HEADER_OFFSET = 0x1F1  # of the setup header, in a bzImage as in the zero page
SETUP_E820_EXT = 1
SETUP_RNG_SEED = 9

_ACPI_RSDP_ADDR = 0x070
_EXT_RAMDISK_IMAGE = 0x0C0
_E820_ENTRIES = 0x1E8
_E820_TABLE = 0x2D0
_TYPE_OF_LOADER = 0x210
_CODE32_START = 0x214
_RAMDISK_IMAGE = 0x218
_CMD_LINE_PTR = 0x228
_SETUP_DATA = 0x250

_NODE = struct.Struct("<QII")
_LOADER_UNDEFINED = 0xFF
_LOADED_HIGH = 1
_PROTOCOL = 0x020F


class BootInfo(NamedTuple):
    """What both boot protocols tell the kernel.

    Attributes:
        cmdline_addr: Guest address of the NUL-terminated command line.
        memory_map: The memory map.
        initrd: Where the initrd lies, or None.
        rsdp_addr: Guest address of the ACPI RSDP; 0 for none.
        setup_data_addr: First node of the setup_data list; 0 for none.
    """

    cmdline_addr: int
    memory_map: Sequence[E820Entry]
    initrd: GuestRange | None
    rsdp_addr: int
    setup_data_addr: int


def elf_header(*, cmdline_size: int, alignment: int) -> bytes:
    """A setup header for an ELF kernel, which carries none: only what startup_64 and setup_arch read."""
    page = bytearray(0x268)
    struct.pack_into("<H", page, 0x1FE, 0xAA55)
    struct.pack_into("<4sH", page, 0x202, b"HdrS", _PROTOCOL)
    page[0x211] = _LOADED_HIGH
    struct.pack_into("<I", page, 0x230, alignment)
    struct.pack_into("<I", page, 0x238, cmdline_size)
    return bytes(page[HEADER_OFFSET:])


def zero_page(header: bytes, info: BootInfo, *, load_addr: int) -> bytes:
    """Fill in a zero page.

    Args:
        header: The kernel's setup header, from 0x1F1 on.
        info: What to tell the kernel; initrd and command line below 4 GiB. Only the first 128 entries of the
            map have room in the page, see `setup_data`.
        load_addr: Where the kernel lies, for code32_start.

    Returns:
        4096 bytes; the sentinel at 0x1EF stays 0, as for a loader that fills in a clean page.
    """
    page = bytearray(ZERO_PAGE_SIZE)
    page[HEADER_OFFSET : HEADER_OFFSET + len(header)] = header
    page[_TYPE_OF_LOADER] = _LOADER_UNDEFINED
    struct.pack_into("<I", page, _CODE32_START, load_addr & 0xFFFF_FFFF)
    struct.pack_into("<I", page, _CMD_LINE_PTR, info.cmdline_addr)
    struct.pack_into("<Q", page, _ACPI_RSDP_ADDR, info.rsdp_addr)
    struct.pack_into("<Q", page, _SETUP_DATA, info.setup_data_addr)
    if info.initrd is not None:
        base, size = info.initrd.base, info.initrd.size
        struct.pack_into("<II", page, _RAMDISK_IMAGE, base & 0xFFFF_FFFF, size & 0xFFFF_FFFF)
        struct.pack_into("<II", page, _EXT_RAMDISK_IMAGE, base >> 32, size >> 32)
    table = info.memory_map[:E820_MAX_ENTRIES]
    page[_E820_ENTRIES] = len(table)
    entries = _e820_entries(table)
    page[_E820_TABLE : _E820_TABLE + len(entries)] = entries
    return bytes(page)


def _e820_entries(table: Sequence[E820Entry]) -> bytes:
    return b"".join(struct.pack("<QQI", entry.base, entry.size, entry.type) for entry in table)


def setup_data(addr: int, memory_map: Sequence[E820Entry], seed: bytes | None) -> bytes:
    """The setup_data list: what the zero page has no room for, one node after the other.

    Args:
        addr: Guest address of the first node, a multiple of 8.
        memory_map: Of which the entries beyond the 128th go here (SETUP_E820_EXT).
        seed: For the kernel's random number generator (SETUP_RNG_SEED, Linux 6.0), or None.

    Returns:
        The list, whose last node points nowhere; empty when there is nothing to say.
    """
    nodes = []
    if more := memory_map[E820_MAX_ENTRIES:]:
        nodes.append((SETUP_E820_EXT, _e820_entries(more)))
    if seed is not None:
        nodes.append((SETUP_RNG_SEED, seed))
    out = b""
    for position, (kind, data) in enumerate(nodes):
        padded = data + bytes(-len(data) % 8)
        following = addr + len(out) + _NODE.size + len(padded)
        last = position == len(nodes) - 1
        out += _NODE.pack(0 if last else following, kind, len(data)) + (data if last else padded)
    return out
