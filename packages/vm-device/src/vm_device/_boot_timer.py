"""A port a guest writes to say how far its boot has come."""

import time
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

_PORT: Final = 0x5F0


class BootTimer:
    """A debug port: each write is reported with the host's monotonic time; reads give all-ones.

    Args:
        on_mark: called with (monotonic nanoseconds, value written) in the vCPU's thread.
        clock_ns: the clock.
    """

    USERSPACE = 0x7B
    """The value a guest writes when its init runs."""

    def __init__(
        self, on_mark: Callable[[int, int], object], *, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._on_mark = on_mark
        self._clock_ns = clock_ns

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - BusDevice
        """All-ones."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Report `value`; writes beyond the first port are ignored."""
        if offset == 0:
            self._on_mark(self._clock_ns(), value)

    @staticmethod
    def state() -> "vm_device.BootTimerState":
        """Return the saved state."""
        return vm_device.BootTimerState()

    @classmethod
    def from_state(
        cls,
        state: "vm_device.BootTimerState",
        on_mark: Callable[[int, int], object],
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> "BootTimer":
        """Rebuild the port; its clock is the new host's.

        Raises:
            SavedStateError: unknown version.
        """
        check_saved(state)
        return cls(on_mark, clock_ns=clock_ns)

    @staticmethod
    def describe(id: str = "boot-timer", base: int = _PORT) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: four ports, so that 1, 2 and 4-byte writes all arrive."""
        return DeviceNode(id, "boot-timer", (AddressRange(AddressSpace.PIO, base, 4),))
