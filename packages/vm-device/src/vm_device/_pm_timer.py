"""The ACPI power management timer (ACPI 6.5 section 4.8.2.1)."""

import time
from collections.abc import Callable
from typing import Final

import attrs

from vm_device._errors import PlatformError, SavedStateError
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

_PORT: Final = 0x608
_NS: Final = 1_000_000_000


@attrs.frozen
class PmTimerState:
    """Saved state of a PmTimer of `bits` bits, version 1: the `count` that it showed."""

    count: int
    bits: int
    version: int = 1


class PmTimer:
    """A counter of 3.579545 MHz that starts at 0 and that nothing stops; writes are ignored.

    Args:
        clock_ns: monotonic nanoseconds.
        bits: how wide the counter is, 24 or 32.

    Raises:
        PlatformError: another width.
    """

    HZ = 3_579_545
    """Counts a second (ACPI 6.5, 4.8.2.1)."""
    SIZE = 4
    """Ports, or bytes of MMIO."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns, *, bits: int = 32) -> None:
        if bits not in (24, 32):
            raise PlatformError("bits", bits, "must be 24 or 32")
        self._clock_ns = clock_ns
        self._bits = bits
        self._start = clock_ns()

    def count(self) -> int:
        """What the counter shows, 0 .. 2^bits - 1."""
        return (self._clock_ns() - self._start) * self.HZ // _NS & (1 << self._bits) - 1

    def read(self, offset: int, size: int) -> int:
        """Read the counter, or bytes of it; behind it zeros."""
        return self.count() >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignore it."""

    def state(self) -> PmTimerState:
        """Return the saved state."""
        return PmTimerState(self.count(), self._bits)

    @classmethod
    def from_state(cls, state: PmTimerState, clock_ns: Callable[[], int] = time.monotonic_ns) -> "PmTimer":
        """Rebuild the timer; it goes on from what it showed.

        Raises:
            SavedStateError: unknown version or impossible values.
        """
        check_saved(state)
        if state.bits not in (24, 32):
            raise SavedStateError("bits", state.bits, "24 or 32")
        if not 0 <= state.count < 1 << state.bits:
            raise SavedStateError("count", state.count, f"{state.bits} bits")
        timer = cls(clock_ns, bits=state.bits)
        # Rounded up, or the counter would show one less.
        timer._start -= -(-state.count * _NS // cls.HZ)
        return timer

    @staticmethod
    def describe(id: str = "pm-timer", base: int = _PORT) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node; without a HID, for the FADT says where it is."""
        return DeviceNode(id, "pm-timer", (AddressRange(AddressSpace.PIO, base, PmTimer.SIZE),))
