"""What consumers of guest memory may rely on; anybody can provide it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ._access import AccessMap
from ._region import GuestRegionMmap
from ._slice import GuestSlice
from ._types import MemoryOrder, ReadableBuffer, WritableBuffer

__all__ = ("DiscardListener", "GuestAddressSpace", "GuestMemory", "RegionListener")


@runtime_checkable
class GuestMemory(Protocol):
    """The one way to guest memory; an IOMMU may stand behind it.

    Addresses are 0 .. 2^64 - 1, sizes are bytes. A range may span adjacent regions, and may end at exactly
    2^64. A range of no bytes is always fine. Whatever raises has read, written and marked nothing.
    """

    def read(self, addr: int, size: int) -> bytes:
        """Copy exactly `size` bytes out.

        Raises:
            GuestAccessError: Not all of it is mapped.
        """
        ...

    def read_into(self, addr: int, buf: WritableBuffer) -> None:
        """Fill a buffer from memory.

        Raises:
            GuestAccessError: Not all of it is mapped.
        """
        ...

    def write(self, addr: int, data: ReadableBuffer) -> None:
        """Copy all of `data` in and mark the pages dirty.

        Raises:
            GuestAccessError: Not all of it is mapped and writable.
        """
        ...

    def load(self, addr: int, size: int, order: MemoryOrder = MemoryOrder.RELAXED) -> int:
        """One atomic load of 1, 2, 4 or 8 naturally aligned bytes, as an unsigned little-endian integer.

        Args:
            addr: A multiple of `size`.
            size: 1, 2, 4 or 8.
            order: RELAXED, ACQUIRE or SEQ_CST.

        Raises:
            GuestAccessError: Not mapped, or misaligned.
            ValueError: size or order are impossible.
        """
        ...

    def store(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """One atomic store of 1, 2, 4 or 8 naturally aligned bytes; marks the page dirty.

        Args:
            addr: A multiple of `size`.
            size: 1, 2, 4 or 8.
            value: 0 .. 2^(8 * size) - 1.
            order: RELAXED, RELEASE or SEQ_CST.

        Raises:
            GuestAccessError: Not mapped, read-only, or misaligned.
            ValueError: size, value or order are impossible.
        """
        ...

    def check_range(self, addr: int, size: int, *, write: bool = False) -> bool:
        """Would a read (or a write) of this range be served?"""
        ...

    def get_slice(self, addr: int, size: int, *, write: bool = False) -> GuestSlice:
        """A zero-copy window that lies in one region; see GuestSlice for the dirty rule.

        Raises:
            GuestAccessError: It does not lie in one region, or is not writable.
        """
        ...

    def mark_dirty(self, addr: int, size: int) -> None:
        """Mark the pages of a range that was written behind our back; what is not mapped is ignored."""
        ...

    def access_map(self) -> AccessMap:
        """The table for C code; keep the object as long as the address is in use."""
        ...


@runtime_checkable
class GuestAddressSpace(Protocol):
    """Where to get the memory of this moment; devices hold this and not the memory: regions come and go."""

    def memory(self) -> GuestMemory:
        """A snapshot that stays valid while it is held; take a new one for each batch of work."""
        ...


class RegionListener(Protocol):
    """Told about regions before the change takes effect; an exception refuses the change."""

    def region_added(self, region: GuestRegionMmap) -> None:
        """A region is about to appear (KVM: set the slot)."""
        ...

    def region_removed(self, region: GuestRegionMmap) -> None:
        """A region is about to disappear (KVM: delete the slot); snapshots that still hold it stay usable."""
        ...


@runtime_checkable
class DiscardListener(RegionListener, Protocol):
    """A RegionListener that also pins pages (VFIO) or shares them (vhost-user) and must hear of discards."""

    def range_discarded(self, region: GuestRegionMmap, offset: int, size: int) -> None:
        """[offset, offset + size) of the region is about to be given back to the host."""
        ...
