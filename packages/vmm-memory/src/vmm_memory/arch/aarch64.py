"""RAM layout of aarch64: devices below 1 GiB, RAM above."""

from __future__ import annotations

from typing import Final

from .._errors import InvalidRegionError
from .._types import GuestAddress

__all__ = ("RAM_START", "ram_ranges")

RAM_START: Final = GuestAddress(0x4000_0000)
"""Where RAM begins: 1 GiB, as on QEMU's virt machine."""


def ram_ranges(size: int) -> tuple[tuple[GuestAddress, int], ...]:
    """Where `size` bytes of RAM go: from 1 GiB on, in one piece.

    Args:
        size: Bytes, a multiple of 4096, 4096 .. 2^48 - 1 GiB.

    Returns:
        One (address, bytes).

    Raises:
        InvalidRegionError: size is out of range.
    """
    limit = (1 << 48) - RAM_START
    if size < 4096 or size % 4096 or size > limit:
        raise InvalidRegionError(
            f"RAM size is {size:#x}, must be a multiple of 0x1000 in 0x1000 .. {limit:#x}"
        )
    return ((RAM_START, size),)
