"""RAM layout of x86_64: a hole below 4 GiB for devices, IOAPIC and local APICs."""

from __future__ import annotations

from typing import Final

from .._errors import InvalidRegionError
from .._types import GuestAddress

__all__ = ("HOLE_END", "HOLE_START", "ram_ranges")

HOLE_START: Final = GuestAddress(0xC000_0000)
"""Where RAM below 4 GiB ends at the latest: 3 GiB; from there to `HOLE_END` is MMIO."""
HOLE_END: Final = GuestAddress(0x1_0000_0000)
"""Where the rest of RAM begins: 4 GiB."""


def ram_ranges(size: int) -> tuple[tuple[GuestAddress, int], ...]:
    """Where `size` bytes of RAM go: up to 3 GiB from 0 on, the rest from 4 GiB on.

    Args:
        size: Bytes, a multiple of 4096, 4096 .. 2^52 - 1 GiB (the architecture's physical address limit).

    Returns:
        One or two (address, bytes).

    Raises:
        InvalidRegionError: size is out of range.
    """
    limit = (1 << 52) - (HOLE_END - HOLE_START)
    if size < 4096 or size % 4096 or size > limit:
        raise InvalidRegionError(
            f"RAM size is {size:#x}, must be a multiple of 0x1000 in 0x1000 .. {limit:#x}"
        )
    if size <= HOLE_START:
        return ((GuestAddress(0), size),)
    return ((GuestAddress(0), HOLE_START), (HOLE_END, size - HOLE_START))
