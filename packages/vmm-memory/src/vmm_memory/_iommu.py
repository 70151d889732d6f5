"""Memory as a device behind an IOMMU sees it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from ._access import AccessMap, Row
from ._bitmap import AtomicBitmap
from ._bulk import BulkMemory
from ._errors import InvalidGuestAddressError, InvalidRegionError, IommuFaultError
from ._faults import access_error
from ._ffi import lib
from ._holders import Holders
from ._iotlb import Iommu, Iotlb, IotlbEntry, Permissions
from ._memory import READ, WRITE
from ._protocols import GuestAddressSpace, GuestMemory

__all__ = ("IommuMemory",)

_NEEDED: Final = {READ: Permissions.READ, WRITE: Permissions.WRITE}


class IommuMemory(BulkMemory):
    """Guest memory whose addresses an IOMMU translates; implements GuestMemory and GuestAddressSpace.

    Every access, C code on `access_map` included, runs over the translations that the IOTLB holds: a hit
    costs what physical memory costs. What is missing is asked of the IOMMU; what it refuses is an
    IommuFaultError, and nothing was accessed. C code cannot ask: it gets -EFAULT or -EACCES, its caller calls
    `resolve` and tries again with a new `access_map`.

    The table is a snapshot, made anew after the IOTLB changed (`Iotlb.invalidate` can wait for those who
    still use an older one). Any thread may use one IommuMemory.

    Args:
        space: The physical memory behind the IOMMU. This object keeps to the map of the moment in which it
            was made; `memory` returns one over the newest.
        iommu: Who translates.
        iotlb: What was translated so far; a new, empty one by default. Devices of one domain may share it.
        bitmap: Where writes are marked by their IOVA (what vhost-user's log wants while an IOMMU is in use),
            instead of in the regions' own bitmaps by physical address. Bit 0 is IOVA 0; IOVAs past its end
            are not tracked.

    Raises:
        InvalidRegionError: The memory behind it is translated itself.
    """

    __slots__ = ("__weakref__", "_backend", "_behind", "_bitmap", "_iommu", "_space", "iotlb")

    def __init__(
        self,
        space: GuestAddressSpace,
        iommu: Iommu,
        *,
        iotlb: Iotlb | None = None,
        bitmap: AtomicBitmap | None = None,
    ) -> None:
        self._space: Final = space
        self._backend: Final[GuestMemory] = space.memory()
        self._behind: Final = self._backend.access_map()
        if self._behind.translated:
            raise InvalidRegionError(f"{self._backend!r} is translated itself; an IOMMU stands before RAM")
        self._iommu: Final = iommu
        self._bitmap: Final = bitmap
        self.iotlb: Final = Iotlb() if iotlb is None else iotlb
        self._access = None
        self.iotlb.attach(self)

    def __repr__(self) -> str:
        return f"<IommuMemory of {len(self.iotlb)} translations before {self._backend!r}>"

    def memory(self) -> IommuMemory:
        """Itself, or one over the newest physical memory that shares IOMMU and IOTLB."""
        if self._space.memory() is self._backend:
            return self
        return IommuMemory(self._space, self._iommu, iotlb=self.iotlb, bitmap=self._bitmap)

    def forget(self) -> None:
        """Make the table anew for the next access; the IOTLB calls this at each change."""
        self._access = None

    def _renew(self) -> AccessMap:
        # Under the lock, so that no invalidation comes between the look and the store.
        with self.iotlb.lock:
            if self._access is None:
                rows = [row for entry in self.iotlb for row in self._rows(entry)]
                table = AccessMap(rows, translated=True)
                self.iotlb.holders.add(table)
                self._access = table
            return self._access

    def _rows(self, entry: IotlbEntry) -> Iterator[Row]:
        """An entry in terms of regions; parts of it that mean no memory are left out."""
        flags = 0
        if Permissions.WRITE not in entry.permissions:
            flags |= lib.VMM_REGION_READONLY
        if Permissions.READ not in entry.permissions:
            flags |= lib.VMM_REGION_WRITEONLY
        for behind in self._behind.rows_within(entry.target, entry.size):
            start = max(behind.base, entry.target)
            skipped = start - behind.base
            row = Row(
                base=entry.iova + start - entry.target,
                size=min(behind.base + behind.size, entry.target + entry.size) - start,
                region=behind.region,
                offset=behind.offset + skipped,
                flags=behind.flags | flags,
                bitmap=behind.bitmap,
                dirty_base=behind.dirty_base + skipped,
            )
            yield from [row] if self._bitmap is None else _marked_in(self._bitmap, row)

    def _lenders(self) -> tuple[Holders, ...]:
        return (self.iotlb.holders,)

    def _refused(self, table: AccessMap, rc: int, addr: int, size: int, access: int) -> None:
        if rc == -errno.ERANGE or table.emptied:
            raise access_error(table, rc, addr, size)
        needed = _NEEDED.get(access, Permissions.READ | Permissions.WRITE)
        size = max(size, 1)
        gap = self.iotlb.first_missing(addr, size, needed)
        if gap is None and self._access is table:
            raise self._no_memory(table, rc, addr, size, access)
        while gap is not None:
            at, _ = gap
            self.iotlb.insert(self._iommu.translate(at, addr + size - at, needed))
            gap = self.iotlb.first_missing(addr, size, needed)
            # No progress: refused. A step back: the range needs more entries than the IOTLB keeps.
            if gap is not None and gap[0] <= at:
                write = access != READ
                reason = "" if gap[0] == at else f"the range needs more than {self.iotlb.capacity} entries"
                raise IommuFaultError(addr, size, iova=gap[0], write=write, mapped=gap[1], reason=reason)

    def _no_memory(self, table: AccessMap, rc: int, addr: int, size: int, access: int) -> Exception:
        """Everything is translated; what it means is not there, or read-only."""
        if rc == -errno.EACCES:
            return access_error(table, rc, addr, size)
        iova = addr + lib.vmm_mem_reach(table.map, addr, size, access)
        meant = self.iotlb.lookup(iova, 1)
        where = f"{meant[0].target:#x}, where no memory is" if meant else "nothing any more"
        return InvalidGuestAddressError(addr, size, f"IOVA {iova:#x} means {where}")


def _marked_in(bitmap: AtomicBitmap, row: Row) -> Iterator[Row]:
    """The row with another bitmap, of which it may pass the end: what lies past it is not tracked."""
    inside = min(max(bitmap.byte_size - row.base, 0), row.size)
    if inside:
        yield row._replace(size=inside, bitmap=bitmap, dirty_base=row.base)
    if inside < row.size:
        yield row._replace(
            base=row.base + inside, size=row.size - inside, offset=row.offset + inside, bitmap=None
        )
