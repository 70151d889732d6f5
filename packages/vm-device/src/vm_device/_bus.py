"""Address dispatch: immutable bus snapshots."""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs

import vm_device  # whose names load when they are used
from vm_device._errors import AccessSizeError, BusError, RangeNotFoundError
from vm_device.platform import AddressRange, AddressSpace, check_disjoint

_ALL_ONES: Final = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}
_BELOW_ALL: Final = -1 << 70


class BusDevice(Protocol):
    """What a bus calls: values are little-endian unsigned integers, offsets relative to the range."""

    def read(self, offset: int, size: int) -> int:
        """Answer a read of `size` (1, 2, 4, 8) bytes at `offset`; the bus drops bits beyond the size."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write of `size` (1, 2, 4, 8) bytes at `offset`; value is below 2^(8*size)."""
        ...


@attrs.frozen
class BusEntry:
    """One registration: its `range`, and the `device` that answers there."""

    range: AddressRange
    device: BusDevice = attrs.field(eq=id)


class _Counter:
    """A device's methods, counted; exact under threads."""

    __slots__ = ("_device", "_lock", "_reads", "_writes")

    def __init__(self, device: BusDevice) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._reads = self._writes = 0

    def read(self, offset: int, size: int) -> int:
        with self._lock:
            self._reads += 1
        return self._device.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with self._lock:
            self._writes += 1
        self._device.write(offset, size, value)

    def counts(self) -> "vm_device.AccessCounts":
        with self._lock:
            return vm_device.AccessCounts(self._reads, self._writes)


class _Unclaimed:
    """Counter shared by all snapshots of a bus; exact under threads because it is off the hot path."""

    __slots__ = ("_lock", "last", "reads", "writes")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reads = 0
        self.writes = 0
        self.last = -1

    def note_read(self, address: int) -> None:
        """Count a read that no device claims."""
        with self._lock:
            self.reads += 1
            self.last = address

    def note_write(self, address: int) -> None:
        """Count a write that no device claims."""
        with self._lock:
            self.writes += 1
            self.last = address

    def counts(self) -> "vm_device.UnclaimedCounts":
        """Return both counts and the last address, of one moment."""
        with self._lock:
            return vm_device.UnclaimedCounts(self.reads, self.writes, self.last)


def _no_read(offset: int, size: int) -> int:
    raise AssertionError(f"row 0 of a bus claimed offset={offset:#x} size={size}")


def _no_write(offset: int, size: int, value: int) -> None:
    raise AssertionError(f"row 0 of a bus claimed offset={offset:#x} size={size} value={value:#x}")


class Bus:
    """An immutable map from address ranges to devices.

    `with_devices` and `without` return new buses, so a reader needs no lock. An access must lie wholly
    inside one range: one that no range holds, or that crosses the end of a device, is unclaimed. Unclaimed
    reads give all-ones, unclaimed writes are dropped, both are counted (as an open ISA or PCI bus behaves).
    An exception of a device passes through. Methods are looked up once, at registration.

    Args:
        space: PIO or MMIO.
        counting: count what each registration answers, for `counts`; costs a call and a lock an access.
    """

    __slots__ = ("_bases", "_counters", "_entries", "_reads", "_unclaimed", "_writes", "space")

    def __init__(self, space: AddressSpace, *, counting: bool = False) -> None:
        self.space = space
        self._unclaimed = _Unclaimed()
        self._counters: dict[BusEntry, _Counter] | None = {} if counting else None
        self._fill(())

    def _fill(self, entries: tuple[BusEntry, ...]) -> None:
        self._entries = entries
        # Row 0 stands for all below the lowest device and claims nothing: dispatch tests one bound only.
        spans = [(entry.range.base, entry.range.last) for entry in entries]
        self._bases = (_BELOW_ALL, *(base for base, _ in spans))
        unreachable = (_BELOW_ALL, _BELOW_ALL)
        devices: list[BusDevice] = [entry.device for entry in entries]
        if (known := self._counters) is not None:
            self._counters = {entry: known.get(entry) or _Counter(entry.device) for entry in entries}
            devices = list(self._counters.values())
        reads = [device.read for device in devices]
        writes = [device.write for device in devices]
        self._reads = ((*unreachable, _no_read), *((*span, f) for span, f in zip(spans, reads, strict=True)))
        self._writes = (
            (*unreachable, _no_write),
            *((*span, f) for span, f in zip(spans, writes, strict=True)),
        )

    def _derive(self, entries: Iterable[BusEntry]) -> "Bus":
        bus = Bus.__new__(Bus)
        bus.space = self.space
        bus._unclaimed = self._unclaimed
        bus._counters = self._counters
        bus._fill(tuple(sorted(entries, key=lambda entry: entry.range.base)))
        return bus

    def with_device(self, range: AddressRange, device: BusDevice) -> "Bus":  # noqa: A002 - contract name
        """Return a bus that also holds `device` at `range`.

        Raises:
            RangeOverlapError: an address is already claimed. This bus is never changed.
            BusError: the range belongs to the other address space.
        """
        return self.with_devices([(range, device)])

    def with_devices(self, additions: Iterable[tuple[AddressRange, BusDevice]]) -> "Bus":
        """Return a bus that also holds all of `additions`; all or nothing.

        Raises:
            RangeOverlapError: an address is already claimed, or two additions overlap.
            BusError: a range belongs to the other address space.
        """
        added = [BusEntry(range_, device) for range_, device in additions]
        for entry in added:
            if entry.range.space is not self.space:
                raise BusError(f"{entry.range} is not in the {self.space.name} space of this bus")
        entries = [*self._entries, *added]
        check_disjoint(entry.range for entry in entries)
        return self._derive(entries)

    def without(self, range: AddressRange) -> "Bus":  # noqa: A002 - contract name
        """Return a bus without the device registered at exactly `range`.

        Raises:
            RangeNotFoundError: no registration has this base and size.
        """
        rest = [entry for entry in self._entries if entry.range != range]
        if len(rest) == len(self._entries):
            raise RangeNotFoundError(range)
        return self._derive(rest)

    def find(self, address: int) -> BusEntry | None:
        """Return the registration that holds `address`, or None."""
        entry = self._entries[row - 1] if (row := bisect_right(self._bases, address) - 1) > 0 else None
        return entry if entry is not None and entry.range.contains(address) else None

    def read(self, address: int, size: int) -> int:
        """Read `size` (1, 2, 4, 8) bytes at `address`; all-ones where no device answers.

        Raises:
            AccessSizeError: another size, or a negative address.
        """
        mask = _ALL_ONES.get(size)
        if mask is None:
            raise AccessSizeError(address, size)
        base, last, read = self._reads[bisect_right(self._bases, address) - 1]
        if address + size - 1 <= last:
            return read(address - base, size) & mask
        if address < 0:
            raise AccessSizeError(address, size)
        self._unclaimed.note_read(address)
        return mask

    def write(self, address: int, size: int, value: int) -> None:
        """Write the low `size` (1, 2, 4, 8) bytes of `value`; dropped where no device answers.

        Raises:
            AccessSizeError: another size, or a negative address.
        """
        mask = _ALL_ONES.get(size)
        if mask is None:
            raise AccessSizeError(address, size)
        base, last, write = self._writes[bisect_right(self._bases, address) - 1]
        if address + size - 1 <= last:
            write(address - base, size, value & mask)
        elif address < 0:
            raise AccessSizeError(address, size)
        else:
            self._unclaimed.note_write(address)

    def counts(self) -> "dict[AddressRange, vm_device.AccessCounts]":
        """Return what each registration has answered, over all snapshots that have it; {} unless counting."""
        return {entry.range: counter.counts() for entry, counter in (self._counters or {}).items()}

    @property
    def unclaimed(self) -> "vm_device.UnclaimedCounts":
        """Accesses nobody answered, over all snapshots derived from the same first bus."""
        return self._unclaimed.counts()

    def __iter__(self) -> Iterator[BusEntry]:
        """Registrations in address order."""
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Bus {self.space.name} {len(self)} ranges>"
