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
"""Where the GDT of the boot protocols lies; each address here is guest-physical."""
IDT_ADDR: Final = 0x520
"""Where the IDT lies: one empty entry."""
PVH_START_INFO_ADDR: Final = 0x6000
"""Where PVH's `hvm_start_info` lies."""
PVH_MODLIST_ADDR: Final = 0x6040
"""Where PVH's list of modules lies: the initrd."""
PVH_MEMMAP_ADDR: Final = 0x7000
"""Where PVH's memory map lies; the zero page, which PVH does not use, has the same place."""
ZERO_PAGE_ADDR: Final = 0x7000
"""Where the zero page of the 64-bit protocol, `boot_params`, lies."""
BOOT_STACK_ADDR: Final = 0x8FF0
"""The first stack pointer."""
PAGE_TABLE_ADDR: Final = 0x9000
"""Where the page tables that identity-map the first 4 GiB begin."""
SETUP_DATA_ADDR: Final = 0x1_0000
"""Where `setup_data`, the list that the zero page points to, begins: the RNG seed."""
CMDLINE_ADDR: Final = 0x2_0000
"""Where the command line lies."""
CMDLINE_MAX_SIZE: Final = 0x1_0000
"""Bytes of room for the command line, its NUL included."""
LOW_RAM_END: Final = 0x9_FC00
"""End of usable RAM below 1 MiB; the BIOS data area would begin there."""
HIGH_RAM_START: Final = 0x10_0000
"""Where RAM goes on: 1 MiB."""
FOUR_GIB: Final = 1 << 32
"""2^32, the end of what 32-bit addresses reach."""

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
