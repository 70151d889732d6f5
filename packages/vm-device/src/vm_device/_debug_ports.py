"""Two ports by which firmware and kernels talk before anything else works."""

import threading
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._errors import SavedStateError
from vm_device._saved_state import check_saved
from vm_device._serial_tx import TxBatch, Writer
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

_DEBUG_CONSOLE: Final = 0xE9
_POST_CODES: Final = 0x80


class DebugConsole:
    """Bochs's port 0xE9: what is written is text; reading gives 0xE9, which says that somebody listens.

    Thread-safe: `out` is called by one vCPU at a time.

    Args:
        out: takes each byte: a callable, or an object with `write(bytes)`. An OSError loses it (counted in
            `lost`), the guest goes on.
    """

    def __init__(self, out: Callable[[bytes], object] | Writer) -> None:
        self._lock = threading.Lock()  # several vCPUs may write at once
        self._tx = TxBatch(out, lambda: None, None)

    @property
    def lost(self) -> int:
        """Bytes `out` refused."""
        return self._tx.lost

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - BusDevice
        """0xE9 in each byte."""
        return int.from_bytes(bytes([_DEBUG_CONSOLE]) * size, "little")

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Hand on the low byte."""
        with self._lock:
            self._tx.put(value & 0xFF)

    def state(self) -> "vm_device.DebugConsoleState":
        """Return the saved state."""
        with self._lock:
            return vm_device.DebugConsoleState(self._tx.lost)

    @classmethod
    def from_state(
        cls, state: "vm_device.DebugConsoleState", out: Callable[[bytes], object] | Writer
    ) -> "DebugConsole":
        """Rebuild the console; what `out` refuses now is added to what was lost.

        Raises:
            SavedStateError: unknown version or a negative count.
        """
        check_saved(state)
        if state.lost < 0:
            raise SavedStateError("lost", state.lost, "not negative")
        console = cls(out)
        console._tx.lost = state.lost
        return console

    @staticmethod
    def describe(id: str = "debug-console", base: int = _DEBUG_CONSOLE) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: one port, in no table."""
        return DeviceNode(id, "debug-console", (AddressRange(AddressSpace.PIO, base, 1),))


class PostCodes:
    """Port 0x80: the progress codes of firmware, and the delay loops of old drivers.

    Args:
        on_code: called with each byte, in the vCPU's thread; must not block, nor keep every code: a guest
            that waits on this port writes it millions of times.
    """

    def __init__(self, on_code: Callable[[int], object]) -> None:
        self._on_code = on_code

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - BusDevice
        """All-ones, as an open bus."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Report the low byte."""
        self._on_code(value & 0xFF)

    @staticmethod
    def state() -> "vm_device.PostCodesState":
        """Return the saved state."""
        return vm_device.PostCodesState()

    @classmethod
    def from_state(cls, state: "vm_device.PostCodesState", on_code: Callable[[int], object]) -> "PostCodes":
        """Rebuild the port.

        Raises:
            SavedStateError: unknown version.
        """
        check_saved(state)
        return cls(on_code)

    @staticmethod
    def describe(id: str = "post-codes", base: int = _POST_CODES) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: one port, in no table."""
        return DeviceNode(id, "post-codes", (AddressRange(AddressSpace.PIO, base, 1),))
