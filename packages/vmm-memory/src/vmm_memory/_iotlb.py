"""What an IOMMU has translated so far."""

from __future__ import annotations

import enum
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs

from ._errors import InvalidRegionError, RegionBusyError
from ._holders import Holders

__all__ = ("Iommu", "Iotlb", "IotlbEntry", "Permissions")

_LIMIT: Final = 1 << 64


class Permissions(enum.Flag):
    """What a device may do with an address."""

    READ = 1
    WRITE = 2


def _address(_: object, field: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value < _LIMIT:
        raise InvalidRegionError(f"IotlbEntry.{field.name} is {value:#x}, must be in 0 .. 2^64 - 1")


@attrs.frozen
class IotlbEntry:
    """IOVA range [iova, iova + size) means guest physical [target, target + size).

    Attributes:
        iova: First I/O virtual address, 0 .. 2^64 - 1; bytes, no alignment is asked for.
        size: Bytes, at least 1; neither range may pass 2^64.
        target: First guest physical address.
        permissions: At least one of them.

    Raises:
        InvalidRegionError: A field is out of range.
    """

    iova: int = attrs.field(validator=_address)
    size: int
    target: int = attrs.field(validator=_address)
    permissions: Permissions = Permissions.READ | Permissions.WRITE

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or max(self.iova, self.target) + self.size > _LIMIT:
            raise InvalidRegionError(
                f"IotlbEntry {self.iova:#x} + {self.size:#x} -> {self.target:#x}: size must be at least 1, "
                "and neither range may pass 2^64"
            )
        if not self.permissions:
            raise InvalidRegionError(f"IotlbEntry {self.iova:#x} + {self.size:#x}: permits nothing")

    @property
    def end(self) -> int:
        """One past the last IOVA."""
        return self.iova + self.size

    def part(self, start: int, end: int) -> IotlbEntry:
        """The same translation of the IOVAs [start, end), which lie in this one."""
        return attrs.evolve(self, iova=start, size=end - start, target=self.target + start - self.iova)


class Iommu(Protocol):
    """Where translations come from: virtio-iommu's domains, a vhost-user front end, a walk of page tables."""

    def translate(self, iova: int, size: int, permissions: Permissions) -> Iterable[IotlbEntry]:
        """Translate what the IOTLB does not hold, at least the first byte of it.

        Called without locks, from any thread that accesses memory, and not again for what it returned until
        that is invalidated or evicted. It may return more than was asked for.

        Args:
            iova: First IOVA that is missing, or whose permissions are too few.
            size: Bytes of the access from there on.
            permissions: What it is to be accessed for.

        Returns:
            Entries with these permissions; none to refuse, which becomes IommuFaultError.
        """
        ...


class Iotlb:
    """Translations by IOVA range; any thread may look up, insert and invalidate.

    Neighbours that mean consecutive memory with equal permissions are merged. What is inserted replaces what
    was there. Beyond `capacity` entries the oldest is forgotten, and asked for again when it is needed: a
    driver cannot make it grow.

    Args:
        capacity: Entries kept, at least 1; Linux's vhost has 2048 as well (drivers/vhost/vhost.c,
            max_iotlb_entries). An access that needs more entries at once faults.

    Raises:
        ValueError: capacity is less than 1.
    """

    __slots__ = ("__weakref__", "_caches", "_earlier", "_entries", "_starts", "capacity", "holders", "lock")

    def __init__(self, capacity: int = 2048) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, must be at least 1")
        self.capacity: Final = capacity
        self.lock: Final = threading.RLock()
        # In the order of arrival, by IOVA; and these in ascending order.
        self._entries: Final[dict[int, IotlbEntry]] = {}
        self._starts: Final[list[int]] = []
        self._caches: Final[weakref.WeakSet[_Cache]] = weakref.WeakSet()
        self.holders = Holders()
        self._earlier: list[Holders] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[IotlbEntry]:
        """The entries of this moment, by ascending IOVA."""
        with self.lock:
            return iter([self._entries[start] for start in self._starts])

    def __repr__(self) -> str:
        return f"<Iotlb of {len(self)} entries, at most {self.capacity}>"

    def insert(self, entries: Iterable[IotlbEntry]) -> None:
        """Take translations in; what they overlap is replaced."""
        with self.lock:
            for entry in entries:
                self._cut(entry.iova, entry.end)
                self._add(self._merged(entry))
            self._changed()

    def invalidate(self, iova: int = 0, size: int = _LIMIT, *, timeout: float | None = None) -> None:
        """Forget the translations of a range; everything by default.

        Accesses that begin afterwards ask the IOMMU anew. Those that run already may finish with what they
        had, and so may slices and C code with an older `access_map`: wait for them before the memory behind
        it is given to somebody else.

        Args:
            iova: First IOVA.
            size: Bytes.
            timeout: Seconds to wait for who may still use an older translation of the range; None: do not
                wait.

        Raises:
            RegionBusyError: Somebody still does, and is named; the translations are forgotten all the same.
        """
        with self.lock:
            self._cut(iova, iova + size)
            self._earlier = [holders for holders in self._earlier if holders.names()]
            self._earlier.append(self.holders)
            self.holders = Holders()
            self._changed()
            earlier = tuple(self._earlier)
        if timeout is None:
            return
        users = tuple(name for holders in earlier for name in holders.wait(timeout, (iova, iova + size)))
        if users:
            raise RegionBusyError(f"the translation of {iova:#x} + {size:#x}", users)

    def lookup(self, iova: int, size: int) -> tuple[IotlbEntry, ...]:
        """The translated parts of a range, cut to it, by ascending IOVA."""
        with self.lock:
            first = max(bisect_right(self._starts, iova) - 1, 0)
            found = [self._entries[s] for s in self._starts[first : bisect_left(self._starts, iova + size)]]
        end = iova + size
        return tuple(e.part(max(e.iova, iova), min(e.end, end)) for e in found if e.end > iova and size)

    def first_missing(self, iova: int, size: int, permissions: Permissions) -> tuple[int, bool] | None:
        """The first IOVA of a range that is not translated for these permissions.

        Returns:
            (IOVA, whether it is translated, with too few permissions); None when nothing is missing.
        """
        at = iova
        for entry in self.lookup(iova, size):
            if entry.iova > at:
                break
            if permissions not in entry.permissions:
                return at, True
            at = entry.end
        return None if at >= iova + size else (at, False)

    def attach(self, cache: _Cache) -> None:
        """Have `forget` of this object called, under `lock`, at each change; it is referred to weakly."""
        self._caches.add(cache)

    def _changed(self) -> None:
        # An invalidation inside an entry makes two of it.
        while len(self._entries) > self.capacity:
            self._drop(next(iter(self._entries)))
        for cache in list(self._caches):
            cache.forget()

    def _add(self, entry: IotlbEntry) -> None:
        self._entries[entry.iova] = entry
        self._starts.insert(bisect_left(self._starts, entry.iova), entry.iova)

    def _drop(self, start: int) -> IotlbEntry:
        del self._starts[bisect_left(self._starts, start)]
        return self._entries.pop(start)

    def _cut(self, start: int, end: int) -> None:
        if start >= end:
            return
        first = max(bisect_right(self._starts, start) - 1, 0)
        for at in self._starts[first : bisect_left(self._starts, end)]:
            entry = self._entries[at]
            if entry.end <= start:
                continue
            self._drop(at)
            if entry.iova < start:
                self._add(entry.part(entry.iova, start))
            if entry.end > end:
                self._add(entry.part(end, entry.end))

    def _merged(self, entry: IotlbEntry) -> IotlbEntry:
        """The entry with its neighbours, which are dropped, if they go on where it ends or begins."""
        i = bisect_left(self._starts, entry.iova)
        sides = [self._entries[start] for start in self._starts[max(i - 1, 0) : i + 1]]
        for other in sides:
            low, high = (other, entry) if other.iova < entry.iova else (entry, other)
            follows = low.end == high.iova and low.target + low.size == high.target
            if follows and low.permissions == high.permissions:
                self._drop(other.iova)
                entry = attrs.evolve(low, size=low.size + high.size)
        return entry


class _Cache(Protocol):
    def forget(self) -> None:
        """The translations have changed."""
