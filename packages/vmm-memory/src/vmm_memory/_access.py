"""The table that C code walks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Final

from ._ffi import CData, address_of, ffi, lib
from ._region import GuestRegionMmap

__all__ = ("AccessMap",)


class AccessMap:
    """A `struct vmm_map` (vmm_access.h) with everything it refers to; made by `GuestMemory.access_map`.

    It never changes, except that it is emptied in a forked child, where its memory is not mapped: C code
    there gets -EFAULT instead of a crash.

    Attributes:
        address: Host address of the `struct vmm_map`, valid while this object lives.
        owner_pid: The process whose memory it is.
    """

    __slots__ = ("__weakref__", "_keep", "_table", "address", "map", "owner_pid", "regions")

    def __init__(self, regions: Sequence[GuestRegionMmap]) -> None:
        self.regions: Final = tuple(regions)
        self.owner_pid: Final = os.getpid()
        self._table: Final[CData] = ffi.new("struct vmm_region[]", max(len(self.regions), 1))
        # SAFETY: the table points into mappings and bitmaps; the list below keeps both as long as the table.
        self._keep: Final = [(region.mapping.pointer, region.bitmap) for region in self.regions]
        for i, region in enumerate(self.regions):
            _fill(self._table[i], region)
        self.map: Final[CData] = ffi.new("struct vmm_map *")
        self.map.abi = lib.VMM_MAP_ABI
        self.map.count = len(self.regions)
        self.map.regions = self._table
        self.address: Final = address_of(self.map)
        for region in self.regions:
            region.add_user(self)
        _live.add(self)

    def __repr__(self) -> str:
        return f"<AccessMap of {len(self.regions)} regions>"

    def empty(self) -> None:
        """Make every further access fail; for a child process that has no guest memory."""
        self.map.count = 0


def _fill(entry: CData, region: GuestRegionMmap) -> None:
    entry.base = region.base
    entry.size = region.size
    entry.host = region.mapping.pointer
    entry.flags = lib.VMM_REGION_READONLY if region.read_only else 0
    if region.bitmap is not None:
        entry.dirty = region.bitmap.words
        entry.dirty_shift = region.bitmap.shift


_live: Final[weakref.WeakSet[AccessMap]] = weakref.WeakSet()


def _empty_all() -> None:
    for table in list(_live):
        table.empty()


# Checked once per fork and not once per access: a getpid() there would cost as much as the access.
os.register_at_fork(after_in_child=_empty_all)
