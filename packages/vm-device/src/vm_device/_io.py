"""The manager that swaps bus snapshots under running vCPUs, and the grace point after a swap."""

import itertools
import threading
import time
from collections.abc import Iterable

import attrs

from vm_device._bus import Bus, BusDevice
from vm_device._errors import RangeNotFoundError
from vm_device._value import Value
from vm_device.platform import AddressRange, AddressSpace


@attrs.frozen(eq=False, repr=False)
class IoSnapshot(Value):
    """Both buses, `pio` and `mmio`, as they were at one moment."""

    pio: Bus
    mmio: Bus


class IoReader:
    """One vCPU thread's view of an IoManager; makes removal of a device observable.

    A reader takes the snapshot that is current when an access begins and keeps it for that one access.
    Use from one thread only; create with `IoManager.reader`.
    """

    __slots__ = ("_busy", "_manager", "_thread", "name")

    def __init__(self, manager: "IoManager", name: str) -> None:
        self._manager = manager
        self._busy = 0
        self._thread = 0
        self.name = name

    # _busy is odd while an access is under way. It is raised before the snapshot is loaded: a swap therefore
    # either comes first and is seen by the load, or finds the reader busy and waits for it.

    def pio_read(self, port: int, size: int) -> int:
        """As Bus.read on the PIO bus."""
        if not self._thread:
            self._thread = threading.get_ident()
        self._busy += 1
        try:
            return self._manager._current.pio.read(port, size)
        finally:
            self._busy += 1

    def pio_write(self, port: int, size: int, value: int) -> None:
        """As Bus.write on the PIO bus."""
        if not self._thread:
            self._thread = threading.get_ident()
        self._busy += 1
        try:
            self._manager._current.pio.write(port, size, value)
        finally:
            self._busy += 1

    def mmio_read(self, address: int, size: int) -> int:
        """As Bus.read on the MMIO bus."""
        if not self._thread:
            self._thread = threading.get_ident()
        self._busy += 1
        try:
            return self._manager._current.mmio.read(address, size)
        finally:
            self._busy += 1

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """As Bus.write on the MMIO bus."""
        if not self._thread:
            self._thread = threading.get_ident()
        self._busy += 1
        try:
            self._manager._current.mmio.write(address, size, value)
        finally:
            self._busy += 1

    def close(self) -> None:
        """Leave the manager; idempotent."""
        self._manager._drop(self)


class IoManager:
    """Both buses of a machine, swapped atomically while vCPUs read them.

    Readers never lock: `pio`, `mmio` and `snapshot()` are one attribute load, and whoever loaded a snapshot
    keeps the old one for the access at hand. After `unregister`, a removed device may thus see one more
    access per thread; `grace()` waits until that can no longer happen for accesses made through an
    `IoReader`.

    Args:
        counting: count what each registration answers; see `Bus`.
    """

    def __init__(self, *, counting: bool = False) -> None:
        self._lock = threading.Lock()
        self._readers: tuple[IoReader, ...] = ()
        self._numbers = itertools.count()
        self._current = IoSnapshot(
            Bus(AddressSpace.PIO, counting=counting), Bus(AddressSpace.MMIO, counting=counting)
        )

    @property
    def pio(self) -> Bus:
        """The current PIO bus."""
        return self._current.pio

    @property
    def mmio(self) -> Bus:
        """The current MMIO bus."""
        return self._current.mmio

    def snapshot(self) -> IoSnapshot:
        """Return both buses of one moment; keep them for one access only, then ask again."""
        return self._current

    def register(self, ranges: AddressRange | Iterable[AddressRange], device: BusDevice) -> None:
        """Claim all `ranges` for `device` in one swap.

        Raises:
            RangeOverlapError: one of them is taken; then none is registered.
        """
        wanted = [ranges] if isinstance(ranges, AddressRange) else list(ranges)
        with self._lock:
            old = self._current
            self._current = IoSnapshot(
                old.pio.with_devices((r, device) for r in wanted if r.space is AddressSpace.PIO),
                old.mmio.with_devices((r, device) for r in wanted if r.space is AddressSpace.MMIO),
            )

    def unregister(self, ranges: AddressRange | Iterable[AddressRange]) -> None:
        """Release all `ranges` in one swap; follow with `grace()` before the device is torn down.

        Raises:
            RangeNotFoundError: one of them is not registered exactly so; then none is released.
        """
        wanted = [ranges] if isinstance(ranges, AddressRange) else list(ranges)
        with self._lock:
            self._current = self._removed(wanted)

    def move(self, old: AddressRange, new: AddressRange) -> None:
        """Move the device at `old` to `new` in one swap (a PCI BAR update); no access sees both or neither.

        Raises:
            RangeNotFoundError: nothing is registered at `old`.
            RangeOverlapError: `new` is taken by another device. The device stays at `old` on any error.
            BusError: the two lie in different spaces.
        """
        with self._lock:
            bus = self._current.pio if old.space is AddressSpace.PIO else self._current.mmio
            entry = bus.find(old.base)
            if entry is None or entry.range != old:
                raise RangeNotFoundError(old)
            moved = bus.without(old).with_device(new, entry.device)
            pio = old.space is AddressSpace.PIO
            self._current = (
                IoSnapshot(moved, self._current.mmio) if pio else IoSnapshot(self._current.pio, moved)
            )

    def _removed(self, ranges: Iterable[AddressRange]) -> IoSnapshot:
        pio, mmio = self._current.pio, self._current.mmio
        for range_ in ranges:
            if range_.space is AddressSpace.PIO:
                pio = pio.without(range_)
            else:
                mmio = mmio.without(range_)
        return IoSnapshot(pio, mmio)

    def reader(self, name: str | None = None) -> IoReader:
        """Return a dispatcher for one vCPU thread whose accesses `grace()` waits for."""
        reader = IoReader(self, name or f"reader{next(self._numbers)}")
        with self._lock:
            self._readers = (*self._readers, reader)
        return reader

    def _drop(self, reader: IoReader) -> None:
        with self._lock:
            self._readers = tuple(other for other in self._readers if other is not reader)

    def grace(self, timeout: float = 1.0) -> bool:
        """Wait until every access that began before this call has ended.

        A reader of the calling thread is skipped: a device may remove itself from inside its own register
        write.

        Args:
            timeout: seconds to wait at most, >= 0.

        Returns:
            True when the grace point was reached, False when a reader was still inside a device at the
            timeout.
        """
        me, deadline = threading.get_ident(), time.monotonic() + timeout
        waiting = [(r, busy) for r in self._readers if (busy := r._busy) & 1 and r._thread != me]
        while waiting:
            waiting = [(r, busy) for r, busy in waiting if r._busy == busy]
            if not waiting:
                break
            if time.monotonic() >= deadline:
                return False
            time.sleep(
                0.0001
            )  # register accesses take microseconds; a wakeup per access would cost every vCPU
        return True
