"""The writes that surround a kernel on x86: descriptor tables, page tables, zero page or PVH start info."""

from __future__ import annotations

from linux_loader import _bootparams, _pvh
from linux_loader._bootparams import BootInfo
from linux_loader._entry import gdt_bytes, page_table_bytes
from linux_loader._image import KernelImage
from linux_loader._placement import PlacedKernel
from linux_loader._plan import Write
from linux_loader._protocol import BootProtocol
from linux_loader._ranges import GuestRange
from linux_loader.arch.x86_64 import (
    CMDLINE_ADDR,
    GDT_ADDR,
    IDT_ADDR,
    PAGE_TABLE_ADDR,
    PVH_MEMMAP_ADDR,
    PVH_MODLIST_ADDR,
    PVH_START_INFO_ADDR,
    SETUP_DATA_ADDR,
    ZERO_PAGE_ADDR,
)

_ELF_ALIGNMENT = 0x100_0000


def table_writes(protocol: BootProtocol, cmdline: bytes, setup_data: bytes) -> list[Write]:
    """What can be written down before the kernel's place is known."""
    long_mode = protocol is BootProtocol.LINUX64
    writes = [
        Write.of("GDT", GDT_ADDR, gdt_bytes(long_mode=long_mode)),
        Write.of("IDT", IDT_ADDR, bytes(8)),
        Write.of("command line", CMDLINE_ADDR, cmdline),
    ]
    if long_mode:
        writes.append(Write.of("page tables", PAGE_TABLE_ADDR, page_table_bytes()))
    if setup_data:
        writes.append(Write.of("setup_data", SETUP_DATA_ADDR, setup_data))
    return writes


def info_ranges(protocol: BootProtocol, map_entries: int) -> list[tuple[str, GuestRange]]:
    """Where :func:`info_writes` is going to write, and the stack."""
    if protocol is not BootProtocol.PVH:
        return [("zero page and boot stack", GuestRange(ZERO_PAGE_ADDR, PAGE_TABLE_ADDR - ZERO_PAGE_ADDR))]
    return [
        ("PVH start info", GuestRange(PVH_START_INFO_ADDR, 56)),
        ("PVH module list", GuestRange(PVH_MODLIST_ADDR, 32)),
        ("PVH memory map", GuestRange(PVH_MEMMAP_ADDR, 24 * map_entries)),
    ]


def info_writes(
    protocol: BootProtocol, image: KernelImage, placed: PlacedKernel, info: BootInfo, longest: int
) -> list[Write]:
    """What the kernel is told about its machine; ``longest`` bytes of command line are announced."""
    if protocol is BootProtocol.PVH:
        return [
            Write.of("PVH start info", PVH_START_INFO_ADDR, _pvh.start_info(info)),
            Write.of("PVH module list", PVH_MODLIST_ADDR, _pvh.module_list(info)),
            Write.of("PVH memory map", PVH_MEMMAP_ADDR, _pvh.memory_map(info)),
        ]
    if image.bzimage is not None:
        header = image.bzimage.raw
    else:
        header = _bootparams.elf_header(cmdline_size=longest, alignment=_ELF_ALIGNMENT)
    page = _bootparams.zero_page(header, info, load_addr=placed.load_addr)
    return [Write.of("zero page", ZERO_PAGE_ADDR, page)]


def kernel_writes(image: KernelImage, placed: PlacedKernel, *, fresh: bool) -> list[Write]:
    """The kernel itself, and its BSS when memory may hold anything but zeros."""
    if image.bzimage is not None:
        header = image.bzimage
        return [Write.of("kernel", placed.load_addr, image.contents(header.setup_size, header.code_size))]
    writes = []
    for segment in image.elf.segments if image.elf is not None else ():
        base = segment.memory.base
        writes.append(Write.of("kernel segment", base, image.contents(segment.offset, segment.file_size)))
        if not fresh:
            bss = GuestRange(base + segment.file_size, segment.memory.size - segment.file_size)
            writes.append(Write("kernel BSS", bss, None))
    return writes
