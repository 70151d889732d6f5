"""The table that C code walks."""

from __future__ import annotations

import os
import struct
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ._bitmap import AtomicBitmap
from ._ffi import CData, address_of, ffi, lib
from ._holders import caller
from ._region import GuestRegionMmap

__all__ = ("AccessMap", "Row", "rows_of")

# struct vmm_region; the compiler's layout is asserted in vmm_access.h, and a test reads a table back.
_REGION: Final = struct.Struct("<QQQQIIQ")


class Row(NamedTuple):
    """One entry of the table: guest addresses [base, base + size), and the part of a region they mean.

    Attributes:
        base: First address.
        size: Bytes, at least 1.
        region: Where they lie.
        offset: Bytes from the region's base to the first of them.
        flags: VMM_REGION_*.
        bitmap: Where writes are marked, or None.
        dirty_base: Bytes from what the bitmap's bit 0 stands for to the first of them.
    """

    base: int
    size: int
    region: GuestRegionMmap
    offset: int
    flags: int
    bitmap: AtomicBitmap | None
    dirty_base: int


def rows_of(regions: Iterable[GuestRegionMmap]) -> list[Row]:
    """The table of physical memory: each region whole."""
    flags = lib.VMM_REGION_READONLY
    return [Row(r.base, r.size, r, 0, flags if r.read_only else 0, r.bitmap, 0) for r in regions]


class AccessMap:
    """A `struct vmm_map` (vmm_access.h) with everything it refers to; made by `GuestMemory.access_map`.

    It never changes, except that it is emptied in a forked child, where its memory is not mapped: C code
    there gets -EFAULT instead of a crash. Take it anew for each batch of work: behind an IOMMU the next one
    may translate otherwise.

    Attributes:
        address: Host address of the `struct vmm_map`, valid while this object lives.
        map: The same as a pointer of cffi, which another extension by cffi takes as `const void *`. By itself
            it keeps neither the table of regions nor the memory: hold this object as long as C works.
        owner_pid: The process whose memory it is.
        translated: Its addresses are IOVAs: what it refuses may be resolved (`GuestMemory.resolve`).
    """

    __slots__ = (
        "__weakref__", "_bases", "_keep", "_made_at", "_table", "address", "map", "owner_pid", "rows",
        "translated",
    )  # fmt: skip

    def __init__(self, rows: Sequence[Row], *, translated: bool = False) -> None:
        self.rows: Final = tuple(rows)
        self.translated: Final = translated
        self.owner_pid: Final = os.getpid()
        self._made_at: Final = caller()
        self._bases: Final = [row.base for row in self.rows]
        regions = {id(row.region): row.region for row in self.rows}.values()
        # SAFETY: the table points into mappings and bitmaps; this list keeps both as long as the table.
        self._keep: Final[list[object]] = [region.mapping.pointer for region in regions]
        self._table: Final[CData] = ffi.new("struct vmm_region[]", max(len(self.rows), 1))
        packed = b"".join(map(self._packed, self.rows))
        # SAFETY: the buffer covers the array that self._table owns, of as many bytes as were packed.
        ffi.buffer(self._table, len(self.rows) * _REGION.size)[:] = packed
        self.map: Final[CData] = ffi.new("struct vmm_map *")
        self.map.abi = lib.VMM_MAP_ABI
        self.map.count = len(self.rows)
        self.map.regions = self._table
        self.map.flags = lib.VMM_MAP_TRANSLATED if translated else 0
        self.address: Final = address_of(self.map)
        for region in regions:
            region.add_user(self)
        _live.add(self)

    def __repr__(self) -> str:
        return f"<AccessMap of {len(self.rows)} regions, made at {self._made_at}>"

    def row_of(self, addr: int) -> Row | None:
        """The entry that holds this address, or None."""
        i = bisect_right(self._bases, addr) - 1
        return self.rows[i] if i >= 0 and addr - self.rows[i].base < self.rows[i].size else None

    def rows_within(self, addr: int, size: int) -> tuple[Row, ...]:
        """The entries that a range touches, by ascending address."""
        first = max(bisect_right(self._bases, addr) - 1, 0)
        found = self.rows[first : bisect_left(self._bases, addr + size)]
        return tuple(row for row in found if row.base + row.size > addr)

    @property
    def emptied(self) -> bool:
        """Is this a forked child, which has no guest memory?"""
        return self.map.count != len(self.rows)  # type: ignore[no-any-return]

    def empty(self) -> None:
        """Make every further access fail; for a child process that has no guest memory."""
        self.map.count = 0

    def _packed(self, row: Row) -> bytes:
        dirty = shift = 0
        if row.bitmap is not None:
            self._keep.append(row.bitmap)
            dirty, shift = address_of(row.bitmap.words), row.bitmap.shift
        host = row.region.host_address + row.offset
        return _REGION.pack(row.base, row.size, host, dirty, shift, row.flags, row.dirty_base)


_live: Final[weakref.WeakSet[AccessMap]] = weakref.WeakSet()


def _empty_all() -> None:
    for table in list(_live):
        table.empty()


# Checked once per fork and not once per access: a getpid() there would cost as much as the access.
os.register_at_fork(after_in_child=_empty_all)
