"""Where the x86-64 loader puts what, in guest-physical addresses.

The map is the one Firecracker and Cloud Hypervisor use; all but the kernel and the initrd lies below 640 KiB.

    0x0500   GDT, 4 entries        0x0520   IDT, one empty gate
    0x6000   PVH start info        0x6040   PVH module list
    0x7000   zero page (64-bit protocol) or PVH memory map
    0x8ff0   boot stack, downwards
    0x9000   page tables: PML4, PDPT, four page directories (identity map of the first 4 GiB)
    0x10000  setup_data list (RNG seed)
    0x20000  command line, at most 64 KiB
    0x9fc00  end of usable low memory; up to 1 MiB reserved
    1 MiB    lowest address of a kernel
"""

from __future__ import annotations

from typing import Final

GDT_ADDR: Final = 0x500
IDT_ADDR: Final = 0x520
PVH_START_INFO_ADDR: Final = 0x6000
PVH_MODLIST_ADDR: Final = 0x6040
PVH_MEMMAP_ADDR: Final = 0x7000
ZERO_PAGE_ADDR: Final = 0x7000
BOOT_STACK_ADDR: Final = 0x8FF0
PAGE_TABLE_ADDR: Final = 0x9000
SETUP_DATA_ADDR: Final = 0x1_0000
CMDLINE_ADDR: Final = 0x2_0000
CMDLINE_MAX_SIZE: Final = 0x1_0000
LOW_RAM_END: Final = 0x9_FC00
HIGH_RAM_START: Final = 0x10_0000
FOUR_GIB: Final = 1 << 32

__all__ = (
    "BOOT_STACK_ADDR",
    "CMDLINE_ADDR",
    "CMDLINE_MAX_SIZE",
    "FOUR_GIB",
    "GDT_ADDR",
    "HIGH_RAM_START",
    "IDT_ADDR",
    "LOW_RAM_END",
    "PAGE_TABLE_ADDR",
    "PVH_MEMMAP_ADDR",
    "PVH_MODLIST_ADDR",
    "PVH_START_INFO_ADDR",
    "SETUP_DATA_ADDR",
    "ZERO_PAGE_ADDR",
)
