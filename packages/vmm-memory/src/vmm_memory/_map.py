"""The immutable map of guest memory: sorted regions and the accesses that run over them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from ._access import AccessMap, rows_of
from ._bulk import BulkMemory
from ._errors import InvalidRegionError, NoSuchRegionError, RegionOverlapError
from ._region import GuestRegionMmap
from ._types import GuestAddress

__all__ = ("GuestMemoryMmap",)


class GuestMemoryMmap(BulkMemory):
    """Regions sorted by address, none overlapping; implements GuestMemory and GuestAddressSpace.

    It never changes: `insert_region` and `remove_region` return another map that shares the regions, and
    readers of this one go on undisturbed. Use GuestMemoryAtomic to publish the newest. All methods may be
    called from any thread.

    Args:
        regions: In any order; may be empty.

    Raises:
        RegionOverlapError: Two of them claim one address.
        InvalidRegionError: Two of them have one slot.
        ClosedError: One of them was closed.
    """

    __slots__ = ("__weakref__", "_bases", "regions")

    def __init__(self, regions: Iterable[GuestRegionMmap] = ()) -> None:
        self.regions: Final = tuple(sorted(regions, key=lambda region: region.base))
        _check_disjoint(self.regions)
        self._bases: Final = [int(region.base) for region in self.regions]
        self._access = AccessMap(rows_of(self.regions))

    @classmethod
    def from_ranges(
        cls,
        ranges: Iterable[tuple[int, int]],
        *,
        hugepages: bool = False,
        dirty: bool = False,
        prefault: bool = False,
    ) -> GuestMemoryMmap:
        """One memfd region per (base, size); the arguments are those of GuestRegionMmap.memfd.

        Raises:
            GuestMemoryError: As GuestRegionMmap.memfd and the constructor; nothing is left behind.
        """
        make = GuestRegionMmap.memfd
        return cls(
            [make(base, size, hugepages=hugepages, dirty=dirty, prefault=prefault) for base, size in ranges]
        )

    def __repr__(self) -> str:
        spans = ", ".join(f"{region.base:#x}-{region.last_addr:#x}" for region in self.regions)
        return f"<GuestMemoryMmap {spans or 'empty'}>"

    def __iter__(self) -> Iterator[GuestRegionMmap]:
        return iter(self.regions)

    @property
    def num_regions(self) -> int:
        """How many regions there are."""
        return len(self.regions)

    @property
    def last_addr(self) -> GuestAddress:
        """The highest mapped guest physical address; 0 for an empty map."""
        return self.regions[-1].last_addr if self.regions else GuestAddress(0)

    def memory(self) -> GuestMemoryMmap:
        """Itself: a map that never changes is its own snapshot."""
        return self

    def find_region(self, addr: int) -> GuestRegionMmap | None:
        """The region that holds this guest physical address, or None."""
        i = bisect_right(self._bases, addr) - 1
        return self.regions[i] if i >= 0 and addr <= self.regions[i].last_addr else None

    def insert_region(self, region: GuestRegionMmap) -> GuestMemoryMmap:
        """A map with one region more; this one is unchanged.

        Raises:
            RegionOverlapError: It overlaps a region of this map.
            InvalidRegionError: Its slot is taken.
        """
        return GuestMemoryMmap((*self.regions, region))

    def remove_region(self, base: int, size: int) -> GuestMemoryMmap:
        """A map without the region of exactly this base and size; this one is unchanged.

        Raises:
            NoSuchRegionError: There is none.
        """
        region = self.find_region(base)
        if region is None or region.base != base or region.size != size:
            raise NoSuchRegionError(base, size)
        return GuestMemoryMmap(other for other in self.regions if other is not region)

    def take_dirty(self) -> tuple[tuple[GuestAddress, int], ...]:
        """Take the dirty bits out of all tracked regions.

        Returns:
            (address, bytes) ranges in ascending order, merged within a region.
        """
        return tuple(
            (GuestAddress(region.base + offset), size)
            for region in self.regions
            if region.bitmap is not None
            for offset, size in region.bitmap.get_and_reset().ranges()
        )


def _check_disjoint(regions: tuple[GuestRegionMmap, ...]) -> None:
    for low, high in pairwise(regions):
        if low.last_addr >= high.base:
            raise RegionOverlapError((low.base, low.last_addr), (high.base, high.last_addr))
    slots: dict[int, GuestRegionMmap] = {}
    for region in regions:
        other = slots.setdefault(region.slot, region)
        if other is not region:
            raise InvalidRegionError(f"slot {region.slot} is used at {other.base:#x} and at {region.base:#x}")
