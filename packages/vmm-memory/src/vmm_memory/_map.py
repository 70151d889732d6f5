"""The immutable map of guest memory: sorted regions and the accesses that run over them."""

from __future__ import annotations

import errno
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from ._access import AccessMap
from ._errors import InvalidRegionError, NoSuchRegionError, RegionOverlapError
from ._faults import access_error, number_error, typed_error
from ._ffi import ffi, lib
from ._region import GuestRegionMmap
from ._slice import GuestSlice
from ._transfer import transfer
from ._types import GuestAddress, MemoryOrder, ReadableBuffer, WritableBuffer

__all__ = ("GuestMemoryMmap",)

# Bound once: an attribute lookup on lib costs a third of a whole access.
_read: Final = lib.vmm_read
_write: Final = lib.vmm_write
_load: Final = lib.vmm_mem_load
_store: Final = lib.vmm_mem_store
_POISON: Final = lib.VMM_MEM_POISON
_new_bytes: Final = ffi.new_allocator(should_clear_after_alloc=False)
_unpack: Final = ffi.unpack
# A guest that names a huge size must not make us allocate it before we know that it is mapped.
_CHECK_FIRST: Final = 1 << 16


class GuestMemoryMmap:
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

    __slots__ = ("__weakref__", "_access", "_bases", "_map", "regions")

    def __init__(self, regions: Iterable[GuestRegionMmap] = ()) -> None:
        self.regions: Final = tuple(sorted(regions, key=lambda region: region.base))
        _check_disjoint(self.regions)
        self._bases: Final = [int(region.base) for region in self.regions]
        self._access: Final = AccessMap(self.regions)
        self._map: Final = self._access.map

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

    def access_map(self) -> AccessMap:
        """See GuestMemory.access_map."""
        return self._access

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

    def read(self, addr: int, size: int) -> bytes:
        """See GuestMemory.read."""
        try:
            if size > _CHECK_FIRST and (rc := lib.vmm_check(self._map, addr, size, 0)):
                raise access_error(self._access, rc, addr, size)
            # SAFETY: the buffer is not cleared: C fills all of it, or says by its result that it did not.
            out = _new_bytes("char[]", size)
            rc = _read(self._map, addr, out, size)
        except (OverflowError, ValueError):
            raise number_error(addr, size) from None
        if rc:
            raise access_error(self._access, rc, addr, size)
        return _unpack(out, size)

    def read_into(self, addr: int, buf: WritableBuffer) -> None:
        """See GuestMemory.read_into."""
        # SAFETY: from_buffer pins the buffer for the call; C gets its true length.
        out = ffi.from_buffer("char[]", buf, True)
        try:
            rc = _read(self._map, addr, out, len(out))
        except OverflowError:
            raise number_error(addr, len(out)) from None
        if rc:
            raise access_error(self._access, rc, addr, len(out))

    def write(self, addr: int, data: ReadableBuffer) -> None:
        """See GuestMemory.write."""
        # SAFETY: C gets a pointer into bytes or into a buffer pinned by from_buffer, with its true length.
        source = data if isinstance(data, bytes) else ffi.from_buffer("char[]", data)
        try:
            rc = _write(self._map, addr, source, len(source))
        except OverflowError:
            raise number_error(addr, len(source)) from None
        if rc:
            raise access_error(self._access, rc, addr, len(source))

    def load(self, addr: int, size: int, order: MemoryOrder = MemoryOrder.RELAXED) -> int:
        """See GuestMemory.load."""
        try:
            value = _load(self._map, addr, size, order)
        except OverflowError:
            raise number_error(addr, size) from None
        if value == _POISON:
            rc = lib.vmm_mem_load_error(self._map, addr, size, order)
            if rc:
                raise typed_error(self._access, rc, addr, size, 0)
        return value

    def store(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store."""
        try:
            rc = _store(self._map, addr, size, order, value)
        except OverflowError:
            raise number_error(addr, size, value) from None
        if rc:
            raise typed_error(self._access, rc, addr, size, value)

    def fill(self, addr: int, size: int, byte: int = 0) -> None:
        """Set a range to one byte value.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was written.
            ValueError: byte is not in 0 .. 255.
        """
        if not 0 <= byte <= 255:
            raise ValueError(f"fill byte is {byte}, must be in 0 .. 255")
        try:
            rc = lib.vmm_mem_fill(self._map, addr, size, byte)
        except OverflowError:
            raise number_error(addr, size) from None
        if rc:
            raise access_error(self._access, rc, addr, size)

    def read_struct(self, addr: int, layout: struct.Struct) -> tuple[int | float | bytes, ...]:
        """Copy a structure out once and unpack the copy.

        Raises:
            GuestAccessError: Not all of it is mapped.
        """
        return layout.unpack(self.read(addr, layout.size))

    def write_struct(self, addr: int, layout: struct.Struct, *values: int | float | bytes) -> None:
        """Pack a structure and write it.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was written.
            struct.error: The values do not fit the layout.
        """
        self.write(addr, layout.pack(*values))

    def check_range(self, addr: int, size: int, *, write: bool = False) -> bool:
        """See GuestMemory.check_range."""
        try:
            return lib.vmm_check(self._map, addr, size, write) == 0
        except OverflowError:
            return False

    def get_slice(self, addr: int, size: int, *, write: bool = False) -> GuestSlice:
        """See GuestMemory.get_slice."""
        region = self.find_region(addr)
        if region is None or self._access.map.count == 0:
            raise access_error(self._access, -errno.EFAULT, addr, size)
        return region.get_slice(addr - region.base, size, write=write)

    def mark_dirty(self, addr: int, size: int) -> None:
        """See GuestMemory.mark_dirty."""
        try:
            lib.vmm_mark_dirty(self._map, addr, size)
        except OverflowError:
            raise number_error(addr, size) from None

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

    def read_from_fd(self, addr: int, fd: int, count: int, *, offset: int | None = None) -> int:
        """Fill memory straight from a file descriptor; interrupted and short reads are continued.

        Args:
            addr: First guest physical address.
            fd: A readable, blocking descriptor.
            count: Bytes, all of which must arrive.
            offset: Where in the file; None reads on at its position (sockets, pipes).

        Returns:
            count.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was read.
            UnexpectedEofError: The file ended first; `completed` bytes were written to memory and marked.
            TransferError: read(2) failed; likewise.
        """
        return transfer(self._access, True, addr, fd=fd, count=count, offset=offset)

    def write_to_fd(self, addr: int, fd: int, count: int, *, offset: int | None = None) -> int:
        """Write memory straight to a file descriptor; interrupted and short writes are continued.

        Args:
            addr: First guest physical address.
            fd: A writable, blocking descriptor.
            count: Bytes.
            offset: Where in the file; None writes on at its position.

        Returns:
            count.

        Raises:
            GuestAccessError: Not all of it is mapped; nothing was written.
            TransferError: write(2) failed after `completed` bytes.
        """
        return transfer(self._access, False, addr, fd=fd, count=count, offset=offset)


def _check_disjoint(regions: tuple[GuestRegionMmap, ...]) -> None:
    for low, high in pairwise(regions):
        if low.last_addr >= high.base:
            raise RegionOverlapError((low.base, low.last_addr), (high.base, high.last_addr))
    slots: dict[int, GuestRegionMmap] = {}
    for region in regions:
        other = slots.setdefault(region.slot, region)
        if other is not region:
            raise InvalidRegionError(f"slot {region.slot} is used at {other.base:#x} and at {region.base:#x}")
