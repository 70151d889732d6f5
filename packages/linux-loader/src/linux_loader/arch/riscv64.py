"""Where Linux on riscv64 wants what (Documentation/arch/riscv/boot.rst), in guest-physical addresses."""

from __future__ import annotations

from typing import Final

from linux_loader._ranges import GuestRange, align_down

CMDLINE_MAX: Final = 1023
"""Longest command line in bytes, the NUL not counted: COMMAND_LINE_SIZE - 1 since Linux 6.3."""
IMAGE_ALIGNMENT: Final = 2 << 20
"""The Image goes ``text_offset`` bytes above a multiple of this."""
IMAGE_END_MAX: Final = 1 << 55
"""The Image must end at or below this address: 56-bit physical addresses, and room above."""

_FDT_WINDOW = 512 << 20

__all__ = ("CMDLINE_MAX", "IMAGE_ALIGNMENT", "IMAGE_END_MAX", "fdt_limit", "initrd_window")


def initrd_window(kernel: GuestRange) -> GuestRange:
    """Return where the initrd may lie: above the kernel, since what is below may not be mapped."""
    return GuestRange(kernel.base, IMAGE_END_MAX)


def fdt_limit(kernel: GuestRange) -> int:
    """Return the address at or below which the device tree ends: near the kernel, as on arm64."""
    return align_down(kernel.base, IMAGE_ALIGNMENT) + _FDT_WINDOW
