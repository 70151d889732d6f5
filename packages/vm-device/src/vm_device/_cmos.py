"""MC146818-compatible real-time clock with 128 bytes of CMOS RAM (PC/AT ports 0x70 and 0x71)."""

import threading
import time
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._errors import PlatformError, SavedStateError
from vm_device._interrupt import Interrupt
from vm_device._saved_state import check_saved
from vm_device._wakeup import CallLater, WakeUp
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec

_SEC, _MIN, _HOUR, _WDAY, _MDAY, _MONTH, _YEAR, _CENTURY = 0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32
_DATE_CELLS: Final = (_WDAY, _MDAY, _MONTH, _YEAR, _CENTURY)
_TIME_CELLS: Final = (_SEC, _MIN, _HOUR, *_DATE_CELLS)
_A, _B, _C, _D = 0x0A, 0x0B, 0x0C, 0x0D
_A_UIP: Final = 0x80
_A_DEFAULT: Final = 0x26  # 32.768 kHz time base, 1.024 kHz periodic rate
_B_SET, _B_BINARY, _B_24H = 0x80, 0x04, 0x02
_ALARMS: Final = (0x05, 0x03, 0x01)  # hour, minute, second
_ANY: Final = 0xC0  # an alarm cell from here on matches always
# Status C's flags; B enables the interrupt of each with the same bit.
_UPDATE, _ALARM, _IRQ = 0x10, 0x20, 0x80
_DAY: Final = 86_400
_NEVER: Final = 1 << 62
_D_VALID: Final = 0x80


def _size_cells(below_4g: int, above_4g: int) -> dict[int, int]:
    """The memory sizes PC firmware leaves in CMOS; each field saturates."""
    extended = min(max(below_4g - (1 << 20), 0) >> 10, 0xFFFF)  # KiB above 1 MiB
    above_16m = min(max(below_4g - (16 << 20), 0) >> 16, 0xFFFF)  # 64 KiB units above 16 MiB
    high = min(above_4g >> 16, 0xFF_FFFF)  # 64 KiB units above 4 GiB
    fields = (
        (0x15, min(below_4g >> 10, 640), 2),
        (0x17, extended, 2),
        (0x30, extended, 2),
        (0x34, above_16m, 2),
        (0x5B, high, 3),
    )
    return {cell + i: value >> 8 * i & 0xFF for cell, value, width in fields for i in range(width)}


class CmosRtc:
    """A clock that is always readable: update-in-progress is never set.

    Time is the injected clock plus an offset that the guest changes by setting the clock. BCD or binary, 12
    or 24 hours, the SET bit and the century cell (0x32) work; a date that does not exist is kept in the
    cells but does not move the clock. Alarm and update-ended flags are set as time passes, and interrupt
    where the guest enabled them; the periodic interrupt can be enabled but never fires.

    Args:
        clock: seconds since 1970 UTC; time.time, or a fixed function for reproducible guests.
        interrupt: an edge line; None, and the flags can be polled only.
        call_later: `EventManager.call_later`, which the interrupts need.
        memory_below_4g: bytes of RAM below 4 GiB, for the size registers.
        memory_above_4g: bytes of RAM from 4 GiB up.

    Raises:
        PlatformError: a negative size.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        interrupt: Interrupt | None = None,
        call_later: CallLater | None = None,
        memory_below_4g: int = 0,
        memory_above_4g: int = 0,
    ) -> None:
        for field, value in (("memory_below_4g", memory_below_4g), ("memory_above_4g", memory_above_4g)):
            if value < 0:
                raise PlatformError(field, value, "must be >= 0 bytes")
        self._clock = clock
        self._interrupt = interrupt
        self._wake = WakeUp(call_later, self._look)
        self._lock = threading.Lock()
        self._index = 0
        self._offset = 0
        self._flags = 0
        self._cells = bytearray(128)
        self._cells[_A], self._cells[_B] = _A_DEFAULT, _B_24H
        for cell, value in _size_cells(memory_below_4g, memory_above_4g).items():
            self._cells[cell] = value
        self._seen = self._seconds()

    @property
    def nmi_masked(self) -> bool:
        """Bit 7 of the last index write: the guest asked that NMIs be masked."""
        return bool(self._index & 0x80)

    def read(self, offset: int, size: int) -> int:
        """Read index (all-ones, it is write-only) and data ports; a wide access reads consecutive ports."""
        with self._lock:
            self._pass_time()
            return sum((self._read_cell() if offset + i == 1 else 0xFF) << 8 * i for i in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        """Write index and data ports; `outw` writes both, index first."""
        with self._lock:
            self._pass_time()
            for i in range(size):
                byte = value >> 8 * i & 0xFF
                if offset + i == 0:
                    self._index = byte
                elif offset + i == 1:
                    self._write_cell(self._index & 0x7F, byte)
            self._signal(0)

    def _read_cell(self) -> int:
        cell = self._index & 0x7F
        if cell == _C:
            flags, self._flags = self._flags, 0
            self._signal(0)  # for the next one
            return flags
        if cell == _D:
            return _D_VALID
        if cell in _TIME_CELLS and not self._cells[_B] & _B_SET:
            self._latch()
        return self._cells[cell]

    def _write_cell(self, cell: int, byte: int) -> None:
        if cell in (_C, _D):
            return
        running = not self._cells[_B] & _B_SET
        if cell == _A:
            byte &= ~_A_UIP
        elif cell == _B and byte & _B_SET:
            byte &= ~_UPDATE
        if (cell == _B and byte & _B_SET and running) or (cell in _TIME_CELLS and running):
            self._latch()
        self._cells[cell] = byte
        # Leaving SET starts the clock from the cells; outside SET each time cell takes effect at once.
        if (cell == _B and not running and not byte & _B_SET) or (cell in _TIME_CELLS and running):
            self._adopt()

    # -- time

    def _host_seconds(self) -> int:
        return int(self._clock() // 1)

    def _encode(self, value: int) -> int:
        return value if self._cells[_B] & _B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, byte: int) -> int:
        if self._cells[_B] & _B_BINARY:
            return byte
        if byte & 0x0F > 9 or byte >> 4 > 9:
            raise ValueError(f"cell value {byte:#04x} is not BCD")
        return (byte >> 4) * 10 + (byte & 0x0F)

    def _latch(self) -> None:
        from vm_device._calendar import date_of  # noqa: PLC0415 - a start is 1 ms sooner without datetime

        now = date_of(self._seconds())
        self._cells[_HOUR] = self._encode_hour(now.hour)
        date = (now.isoweekday() % 7 + 1, now.day, now.month, now.year % 100, now.year // 100)
        values = (now.second, now.minute, *date)
        for cell, value in zip((_SEC, _MIN, *_DATE_CELLS), values, strict=True):
            self._cells[cell] = self._encode(value)

    def _encode_hour(self, hour: int) -> int:
        if self._cells[_B] & _B_24H:
            return self._encode(hour)
        return self._encode(hour % 12 or 12) | (0x80 if hour >= 12 else 0)

    def _decode_hour(self, byte: int) -> int:
        if self._cells[_B] & _B_24H:
            return self._decode(byte)
        hour = self._decode(byte & 0x7F)
        if not 1 <= hour <= 12:
            raise ValueError(f"hour {hour} is not 1..12")
        return hour % 12 + (12 if byte & 0x80 else 0)

    def _adopt(self) -> None:
        from vm_device._calendar import seconds_of  # noqa: PLC0415 - as above

        cells = self._cells
        try:
            year = self._decode(cells[_CENTURY]) * 100 + self._decode(cells[_YEAR])
            day = (year, self._decode(cells[_MONTH]), self._decode(cells[_MDAY]))
            clock = (self._decode_hour(cells[_HOUR]), self._decode(cells[_MIN]), self._decode(cells[_SEC]))
            wanted = seconds_of(day, clock)
        except ValueError:
            return  # not a date yet, e.g. the day was written before the month
        # The weekday is derived from the date; hardware would count it separately, and no system relies on
        # that.
        self._offset = wanted - self._host_seconds()
        self._seen = self._seconds()

    # -- flags and interrupts

    def _seconds(self) -> int:
        return self._host_seconds() + self._offset

    def _pass_time(self) -> None:
        """Set the flags of what happened since the last look."""
        now, seen = self._seconds(), self._seen
        self._seen = now
        if now > seen and not self._cells[_B] & _B_SET:
            self._signal(_UPDATE | (_ALARM if self._until_alarm(seen) <= now - seen else 0))

    def _signal(self, flags: int) -> None:
        """Set flags, interrupt if one that is enabled is new, and be there for the next."""
        self._flags |= flags
        enabled = self._cells[_B]
        if self._flags & enabled & (_UPDATE | _ALARM) and not self._flags & _IRQ:
            self._flags |= _IRQ
            if self._interrupt is not None:
                self._interrupt.trigger()
        if not enabled & _B_SET and not self._flags & _IRQ:
            if enabled & _UPDATE:
                self._wake.within(1 - self._clock() % 1)
            elif enabled & _ALARM and (wait := self._until_alarm(self._seen)) <= _DAY:
                self._wake.within(wait - self._clock() % 1)

    def _until_alarm(self, seconds: int) -> int:
        """Seconds from then to the next alarm, 1 .. 86400; _NEVER when its cells are no time."""
        try:
            hours, minutes, moments = (self._alarm_values(cell) for cell in _ALARMS)
        except ValueError:
            return _NEVER
        today = seconds % _DAY
        for hour in hours:
            for minute in minutes:
                start = hour * 3600 + minute * 60
                # Not second by second where a whole minute is over.
                for second in moments if start + 59 > today else ():
                    if start + second > today:
                        return start + second - today
        return hours[0] * 3600 + minutes[0] * 60 + moments[0] + _DAY - today

    def _alarm_values(self, cell: int) -> range:
        byte, of_hours = self._cells[cell], cell == _ALARMS[0]
        limit = 24 if of_hours else 60
        if byte >= _ANY:
            return range(limit)
        value = self._decode_hour(byte) if of_hours else self._decode(byte)
        if value >= limit:
            raise ValueError(f"alarm cell {cell} is {value}, must be below {limit}")
        return range(value, value + 1)

    def _look(self) -> None:
        with self._lock:
            self._pass_time()
            self._signal(0)

    # -- state and description

    def state(self) -> "vm_device.CmosState":
        """Return the saved state; guest time goes on relative to the host clock of whoever restores it."""
        with self._lock:
            self._pass_time()
            return vm_device.CmosState(self._index, self._offset, bytes(self._cells), self._flags)

    @classmethod
    def from_state(
        cls,
        state: "vm_device.CmosState",
        clock: Callable[[], float] = time.time,
        *,
        interrupt: Interrupt | None = None,
        call_later: CallLater | None = None,
    ) -> "CmosRtc":
        """Rebuild the clock; an alarm that was pending does not interrupt again.

        Raises:
            SavedStateError: unknown version or impossible values.
        """
        check_saved(state, index=0xFF, flags=_UPDATE | _ALARM | _IRQ)
        if len(state.cells) != 128:
            raise SavedStateError("cells", len(state.cells), "128 bytes")
        rtc = cls(clock, interrupt=interrupt, call_later=call_later)
        with rtc._lock:
            rtc._index, rtc._offset, rtc._cells = state.index, state.offset, bytearray(state.cells)
            rtc._flags, rtc._seen = state.flags, rtc._seconds()
            rtc._signal(0)
        return rtc

    @staticmethod
    def describe(id: str = "rtc", base: int = 0x70, gsi: int | None = None) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: ports `base` and `base` + 1, PNP0B00, an edge line or none."""
        ports = AddressRange(AddressSpace.PIO, base, 2)
        lines = () if gsi is None else (InterruptSpec(gsi),)
        return DeviceNode(id, "rtc", (ports,), lines, hid="PNP0B00", compatible=("motorola,mc146818",))
