"""Regions whose overruns cannot go unnoticed."""

from __future__ import annotations

from .._region import GuestRegionMmap

__all__ = ("guarded_region",)


def guarded_region(base: int, size: int, *, shared: bool = False, dirty: bool = True) -> GuestRegionMmap:
    """Anonymous memory with a PROT_NONE page right before and right after: the first stray byte faults.

    Every region of this package lies like that; this function is the promise that the tests may count on it.

    Args:
        base: First guest physical address, a multiple of the page size.
        size: Bytes, a multiple of the page size.
        shared: MAP_SHARED, so that helper processes made before can see it.
        dirty: Track which pages are written.

    Returns:
        The region; `host_address - 1` and `host_address + size` are not accessible.

    Raises:
        InvalidRegionError: base or size are impossible.
        MappingError: mmap(2) failed.
    """
    return GuestRegionMmap.anonymous(base, size, shared, dirty=dirty)
