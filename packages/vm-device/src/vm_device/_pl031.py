"""Arm PrimeCell real-time clock PL031 (DDI 0224)."""

import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from vm_device import _primecell
from vm_device._interrupt import Interrupt
from vm_device._saved_state import check_saved
from vm_device._wakeup import CallLater, WakeUp
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec, Trigger

_DR, _MR, _LR, _CR, _IMSC, _RIS, _MIS, _ICR = range(0x000, 0x020, 4)
_WORD: Final = 0xFFFF_FFFF


@attrs.frozen
class Pl031State:
    """Saved state of a Pl031, version 1; `offset` is guest time minus host time in seconds, modulo 2^32.

    `match` and `load` are RTCMR and RTCLR, `masked_in` and `raw` the bits of RTCIMSC and RTCRIS.
    """

    offset: int
    match: int
    load: int
    masked_in: bool
    raw: bool
    version: int = 1


class Pl031:
    """Seconds since 1970 in 32 bits, which the guest may set, and one alarm.

    The clock never stops (the PL031 cannot be switched off again). The alarm is raised when the counter
    reaches the match register, as seen by the host's clock at second resolution; a host clock that jumps over
    it raises it too. Thread-safe.

    Args:
        interrupt: a level line.
        clock: seconds since 1970 UTC; time.time, or a fixed function for reproducible guests.
        call_later: `EventManager.call_later`; without it the alarm is seen only when the guest looks.
    """

    SIZE = _primecell.SIZE
    """Bytes of MMIO: a page, as all PrimeCells have."""

    def __init__(
        self,
        interrupt: Interrupt,
        *,
        clock: Callable[[], float] = time.time,
        call_later: CallLater | None = None,
    ) -> None:
        self._interrupt = interrupt
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = WakeUp(call_later, self._look)
        self._level = False
        self._load(Pl031State(0, 0, 0, False, False))

    def _load(self, state: Pl031State) -> None:
        self._offset, self._match, self._loaded = state.offset, state.match, state.load
        self._masked_in, self._raw = state.masked_in, state.raw
        self._seen = self._now()

    def read(self, offset: int, size: int) -> int:
        """Read the register at `offset`; its low bytes for a narrow access."""
        with self._lock:
            self._update()
            simple = {
                _DR: self._seen,
                _MR: self._match,
                _LR: self._loaded,
                _CR: 1,
                _IMSC: int(self._masked_in),
                _RIS: int(self._raw),
                _MIS: int(self._raw and self._masked_in),
            }
            value = simple[offset] if offset in simple else _primecell.identity(0x031, 0, offset)
        return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Write the register at `offset`; a narrow access has zeros in the rest."""
        with self._lock:
            self._update()
            value &= _WORD
            if offset == _LR:
                self._loaded = value
                self._offset = (value - int(self._clock() // 1)) & _WORD
                self._seen = value
                self._raw = self._raw or value == self._match
            elif offset == _MR:
                self._match = value
                self._raw = self._raw or value == self._seen
            elif offset == _IMSC:
                self._masked_in = bool(value & 1)
            elif offset == _ICR and value & 1:
                self._raw = False
            self._update()

    # -- time

    def _now(self) -> int:
        return (int(self._clock() // 1) + self._offset) & _WORD

    def _update(self) -> None:
        """Let the time pass that has passed, and bring the line and the wake-up to it."""
        now = self._now()
        passed, left = (now - self._seen) & _WORD, (self._match - self._seen) & _WORD
        # A host clock that was set back has not gone round for 136 years.
        if 1 <= left <= passed < 1 << 31:
            self._raw = True
        self._seen = now
        pending = self._raw and self._masked_in
        if pending != self._level:
            self._level = pending
            self._interrupt.set_level(pending)
        if self._masked_in and not self._raw:
            self._wake.within(float((self._match - now) & _WORD or 1 << 32))

    def _look(self) -> None:
        with self._lock:
            self._update()

    # -- state and description

    def state(self) -> Pl031State:
        """Return the saved state; guest time goes on relative to the host clock of whoever restores it."""
        with self._lock:
            self._update()
            return Pl031State(self._offset, self._match, self._loaded, self._masked_in, self._raw)

    @classmethod
    def from_state(
        cls,
        state: Pl031State,
        interrupt: Interrupt,
        *,
        clock: Callable[[], float] = time.time,
        call_later: CallLater | None = None,
    ) -> "Pl031":
        """Rebuild the clock; a pending alarm signals again on the new line.

        Raises:
            SavedStateError: unknown version or impossible values.
        """
        check_saved(state, offset=_WORD, match=_WORD, load=_WORD)
        device = cls(interrupt, clock=clock, call_later=call_later)
        with device._lock:
            device._load(state)
            device._update()
        return device

    @staticmethod
    def describe(id: str = "rtc", base: int = 0x0901_0000, gsi: int = 34) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node of a clock at `base` (4 KiB) on `gsi`; ACPI has no id for it."""
        where = AddressRange(AddressSpace.MMIO, base, Pl031.SIZE)
        lines = (InterruptSpec(gsi, Trigger.LEVEL),)
        return DeviceNode(id, "rtc", (where,), lines, compatible=("arm,pl031", "arm,primecell"))
