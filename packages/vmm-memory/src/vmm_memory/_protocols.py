"""What consumers of guest memory may rely on; anybody can provide it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import vmm_memory  # whose names load when they are used

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

    def fetch_or(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """Set bits in 1, 2, 4 or 8 naturally aligned bytes, atomically; marks the page dirty.

        Args:
            addr: A multiple of `size`.
            size: 1, 2, 4 or 8.
            value: The bits, 0 .. 2^(8 * size) - 1.
            order: Any.

        Returns:
            The value before.

        Raises:
            GuestAccessError: Not mapped, not both readable and writable, or misaligned.
            ValueError: size or value are impossible.
        """
        ...

    def compare_exchange(
        self, addr: int, size: int, expected: int, desired: int, order: MemoryOrder = MemoryOrder.SEQ_CST
    ) -> int:
        """Store `desired` exactly if the value is `expected`, atomically; marks the page when it stored.

        Args:
            addr: A multiple of `size`.
            size: 1, 2, 4 or 8.
            expected: 0 .. 2^(8 * size) - 1.
            desired: Likewise.
            order: Any.

        Returns:
            The value before: `expected` when it was exchanged, another one otherwise.

        Raises:
            GuestAccessError: Not mapped, not both readable and writable, or misaligned.
            ValueError: size or a value are impossible.
        """
        ...

    def load_vector(self, vector: vmm_memory.AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """Do `load` for each address of the vector, in its order, in one crossing into C.

        Raises:
            GuestAccessError: One is not mapped, or misaligned; `completed` says how many were loaded before.
            ValueError: The order is none for loads.
        """
        ...

    def store_vector(self, vector: vmm_memory.AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """Do `store` for each address of the vector, in its order, in one crossing into C.

        Raises:
            GuestAccessError: One is not mapped, read-only, or misaligned; `completed` says how many were
                stored, and marked dirty, before.
            ValueError: The order is none for stores.
        """
        ...

    def gather(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """Copy many (address, bytes) ranges out, one after the other, in one crossing into C.

        Raises:
            GuestAccessError: Not all of one is mapped; nothing was read.
        """
        ...

    def scatter(self, ranges: Sequence[tuple[int, int]], data: ReadableBuffer) -> None:
        """Copy `data` into many (address, bytes) ranges, one after the other; marks their pages dirty.

        Raises:
            GuestAccessError: Not all of one is mapped and writable; nothing was written.
            ValueError: data has another length than the ranges together.
        """
        ...

    def scatter_from_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """Fill many ranges straight from a file descriptor; interrupted and short reads are continued.

        Args:
            ranges: (address, bytes), filled in this order.
            fd: A readable, blocking descriptor.
            offset: Where in the file; None reads on at its position (sockets, pipes).
            short: Take what one system call brings; 0 is the end of the file.

        Returns:
            Bytes moved: all of them, unless `short`.

        Raises:
            GuestAccessError: Not all of one is mapped and writable; nothing was read.
            UnexpectedEofError: The file ended first; `completed` bytes were written to memory and marked.
            TransferError: read(2) failed; likewise.
        """
        ...

    def gather_to_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """Write many ranges straight to a file descriptor; interrupted and short writes are continued.

        Args:
            ranges: (address, bytes), written in this order.
            fd: A writable, blocking descriptor.
            offset: Where in the file; None writes on at its position.
            short: Give what one system call takes.

        Returns:
            Bytes moved: all of them, unless `short`.

        Raises:
            GuestAccessError: Not all of one is mapped; nothing was written.
            TransferError: write(2) failed after `completed` bytes.
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
        """The table for C code; keep the object while the address is in use, for at most a batch of work."""
        ...

    def resolve(self, addr: int, size: int, *, write: bool = False) -> None:
        """Have the next `access_map` serve this range, which C code found missing in one that `translated`.

        Without an IOMMU there is nothing to resolve: it only checks.

        Args:
            addr: First address that C code could not access.
            size: Bytes.
            write: Are they to be written, or read?

        Raises:
            GuestAccessError: The range cannot be accessed; behind an IOMMU also IommuFaultError.
        """
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
