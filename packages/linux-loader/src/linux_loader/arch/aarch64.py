"""Where Linux on arm64 wants what (Documentation/arch/arm64/booting.rst), in guest-physical addresses."""

from __future__ import annotations

from typing import Final

from linux_loader._ranges import GuestRange, align_down

CMDLINE_MAX: Final = 2047
"""Longest command line in bytes, the NUL not counted: COMMAND_LINE_SIZE - 1."""
IMAGE_ALIGNMENT: Final = 2 << 20
"""The Image goes ``text_offset`` bytes above a multiple of this."""
IMAGE_END_MAX: Final = 1 << 48
"""The Image must end at or below this address."""

_GIB = 1 << 30
_WINDOW = 32 * _GIB
_FDT_WINDOW = 512 << 20

__all__ = ("CMDLINE_MAX", "IMAGE_ALIGNMENT", "IMAGE_END_MAX", "fdt_limit", "initrd_window")


def initrd_window(kernel: GuestRange) -> GuestRange:
    """Return where the initrd may lie: a window of 32 GiB, aligned to 1 GiB, that covers the Image too."""
    return GuestRange(align_down(kernel.base, _GIB), _WINDOW)


def fdt_limit(kernel: GuestRange) -> int:
    """Return the address at or below which the device tree ends: kernels before 4.2 map 512 MiB."""
    return align_down(kernel.base, IMAGE_ALIGNMENT) + _FDT_WINDOW
