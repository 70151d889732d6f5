"""The map that changes: one holder, immutable snapshots, listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ._errors import InvalidGuestAddressError, ListenerError
from ._map import GuestMemoryMmap
from ._protocols import DiscardListener, RegionListener
from ._region import GuestRegionMmap

__all__ = ("GuestMemoryAtomic",)


class GuestMemoryAtomic:
    """Publishes one GuestMemoryMmap after the other; implements GuestAddressSpace.

    Readers call `memory()` and keep what they got for a batch of work: it stays whole while regions come and
    go. Changes are made one at a time. Each runs: build the new map (which may refuse), tell the listeners in
    the order they were added (the last to be told of a removal is the first that was told of the arrival),
    publish. When a listener raises, those already told are told the opposite and nothing has changed.

    Args:
        memory: The first map.
    """

    def __init__(self, memory: GuestMemoryMmap | None = None) -> None:
        self._map = GuestMemoryMmap() if memory is None else memory
        self._lock: Final = threading.RLock()
        self._changing = False
        self._listeners: tuple[RegionListener, ...] = ()

    def memory(self) -> GuestMemoryMmap:
        """The newest map; a snapshot that never changes."""
        return self._map

    def add_listener(self, listener: RegionListener) -> None:
        """Tell this listener of every region there is, then of every change.

        Raises:
            Exception: What its `region_added` raised; it is then told of the removal of what it had accepted,
                and is not a listener.
        """
        with self._exclusive():
            _announce((), self._map.regions, (listener,))
            self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: RegionListener) -> None:
        """Tell this listener nothing any more; it keeps what it has.

        Raises:
            ValueError: It was not added.
        """
        with self._exclusive():
            listeners = list(self._listeners)
            listeners.remove(listener)
            self._listeners = tuple(listeners)

    def insert_region(self, region: GuestRegionMmap) -> GuestMemoryMmap:
        """Publish a map with one region more.

        Returns:
            The new map.

        Raises:
            RegionOverlapError: It overlaps; nothing changed, nobody was told.
            InvalidRegionError: Its slot is taken; likewise.
            ListenerError: Called from a listener.
        """
        with self._exclusive():
            return self._publish(self._map.insert_region(region))

    def remove_region(self, base: int, size: int) -> GuestMemoryMmap:
        """Publish a map without the region of exactly this base and size; older snapshots keep it alive.

        Returns:
            The new map.

        Raises:
            NoSuchRegionError: There is none; nothing changed, nobody was told.
            ListenerError: Called from a listener.
        """
        with self._exclusive():
            return self._publish(self._map.remove_region(base, size))

    def replace(self, memory: GuestMemoryMmap) -> GuestMemoryMmap:
        """Publish another map; listeners hear of the regions (by identity) that only one of the two has.

        Returns:
            The new map.

        Raises:
            ListenerError: Called from a listener.
        """
        with self._exclusive():
            return self._publish(memory)

    def discard(self, addr: int, size: int) -> None:
        """Tell every DiscardListener, then give the pages back to the host (balloon, free page reporting).

        Args:
            addr: First guest physical address.
            size: Bytes, whole pages within one region.

        Raises:
            InvalidGuestAddressError: addr is not mapped; nobody was told.
            GuestMemoryError: As GuestRegionMmap.discard.
        """
        with self._exclusive():
            region = self._map.find_region(addr)
            if region is None:
                raise InvalidGuestAddressError(addr, size, f"{addr:#x} is not mapped; nothing to discard")
            region.check_discard(addr - region.base, size)
            for listener in self._listeners:
                if isinstance(listener, DiscardListener):
                    listener.range_discarded(region, addr - region.base, size)
            region.discard(addr - region.base, size)

    def _publish(self, new: GuestMemoryMmap) -> GuestMemoryMmap:
        old_regions, new_regions = set(self._map.regions), set(new.regions)
        gone = tuple(region for region in self._map.regions if region not in new_regions)
        come = tuple(region for region in new.regions if region not in old_regions)
        _announce(gone, come, self._listeners)
        self._map = new
        return new

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._changing:
                raise ListenerError(
                    f"{self._map!r} is being changed: a listener may read it, but not change it"
                )
            self._changing = True
            try:
                yield
            finally:
                self._changing = False


def _announce(
    gone: tuple[GuestRegionMmap, ...],
    come: tuple[GuestRegionMmap, ...],
    listeners: tuple[RegionListener, ...],
) -> None:
    """Removals first (a new region may lie where an old one was); all told or, after an exception, none."""
    undo: list[tuple[Callable[[GuestRegionMmap], None], GuestRegionMmap]] = []
    steps = [(region, listener, True) for region in gone for listener in reversed(listeners)]
    steps += [(region, listener, False) for region in come for listener in listeners]
    try:
        for region, listener, removed in steps:
            (listener.region_removed if removed else listener.region_added)(region)
            undo.append((listener.region_added if removed else listener.region_removed, region))
    except BaseException as error:
        for opposite, region in reversed(undo):
            try:
                opposite(region)
            except Exception as second:  # noqa: BLE001 - the first failure is what the caller must see
                error.add_note(f"undoing {region!r} failed too: {second!r}")
        raise
