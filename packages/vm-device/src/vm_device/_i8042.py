"""The part of an i8042 keyboard controller that a reboot needs, with answers that keep probes short."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._errors import SavedStateError
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

_STATUS_OUTPUT_FULL: Final = 0x01
_STATUS_IDLE: Final = 0x14  # self-test passed, keyboard not inhibited, input buffer empty
_CMD_READ_CONFIG, _CMD_WRITE_CONFIG, _CMD_SELF_TEST, _CMD_TEST_PORT1 = 0x20, 0x60, 0xAA, 0xAB
_CMD_TEST_PORT2, _CMD_READ_OUTPUT, _CMD_WRITE_OUTPUT, _CMD_RESET = 0xA9, 0xD0, 0xD1, 0xFE
_PORT_B_STUCK_LOW: Final = 0x01  # "clock line stuck low": no keyboard, no mouse
_OUTPUT_PORT: Final = 0x03  # A20 open, reset line high


class I8042:
    """An i8042 without keyboard or mouse: command 0xFE at port 0x64 resets the machine.

    Status always says that the controller takes input, and output only after a command that answers, so that
    polling drivers go on at once. Port 0x61, which lies between its ports, reads as system control port B.

    Args:
        on_reset: called in the writing vCPU's thread; must not block.
    """

    def __init__(self, on_reset: Callable[[], object]) -> None:
        self._on_reset = on_reset
        self._lock = threading.Lock()
        self._config = 0x30  # both ports disabled, no interrupts
        self._expecting = 0
        self._port_b = 0
        self._output: deque[int] = deque(maxlen=16)

    def read(self, offset: int, size: int) -> int:
        """Read port 0x60 + offset; a wide access reads consecutive ports."""
        with self._lock:
            return sum(self._read8(offset + i) << 8 * i for i in range(size))

    def _read8(self, offset: int) -> int:
        if offset == 0:
            return self._output.popleft() if self._output else 0
        if offset == 1:
            self._port_b ^= 0x10  # the refresh toggle, which old delay loops count
            return self._port_b | 0x20  # timer 2 output high: calibration loops on this port end
        if offset == 4:
            return _STATUS_IDLE | (_STATUS_OUTPUT_FULL if self._output else 0)
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Write port 0x60 + offset; a wide access writes consecutive ports."""
        resets = 0
        with self._lock:
            for i in range(size):
                resets += self._write8(offset + i, value >> 8 * i & 0xFF)
        if resets:
            self._on_reset()

    def _write8(self, offset: int, value: int) -> bool:
        if offset == 0:
            return self._write_data(value)
        if offset == 1:
            self._port_b = self._port_b & 0x10 | value & 0x0F
        if offset == 4:
            return self._command(value)
        return False

    def _write_data(self, value: int) -> bool:
        command, self._expecting = self._expecting, 0
        if command == _CMD_WRITE_CONFIG:
            self._config = value
        return command == _CMD_WRITE_OUTPUT and not value & 1  # bit 0 of the output port is the reset line

    def _command(self, value: int) -> bool:
        self._expecting = value if value in (_CMD_WRITE_CONFIG, _CMD_WRITE_OUTPUT) else 0
        if value & 0xF0 == 0xF0:
            return not value & 1  # 0xF0..0xFF pulse the output lines whose bit is 0; line 0 is reset
        answers = {
            _CMD_READ_CONFIG: self._config,
            _CMD_SELF_TEST: 0x55,
            _CMD_TEST_PORT1: _PORT_B_STUCK_LOW,
            _CMD_TEST_PORT2: _PORT_B_STUCK_LOW,
            _CMD_READ_OUTPUT: _OUTPUT_PORT,
        }
        if value in answers:
            self._output.clear()
            self._output.append(answers[value])
        return False

    def state(self) -> "vm_device.I8042State":
        """Return the saved state."""
        with self._lock:
            return vm_device.I8042State(self._config, self._expecting, self._port_b, tuple(self._output))

    @classmethod
    def from_state(cls, state: "vm_device.I8042State", on_reset: Callable[[], object]) -> "I8042":
        """Rebuild the controller.

        Raises:
            SavedStateError: unknown version or impossible values.
        """
        check_saved(state, config=0xFF, expecting=0xFF, port_b=0xFF)
        if len(state.output) > 16 or any(byte & ~0xFF for byte in state.output):
            raise SavedStateError("output", state.output, "at most 16 bytes")
        device = cls(on_reset)
        device._config, device._expecting, device._port_b = state.config, state.expecting, state.port_b
        device._output.extend(state.output)
        return device

    @staticmethod
    def describe(id: str = "i8042", base: int = 0x60) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node; without a HID, for the FADT is to say that there is no 8042."""
        return DeviceNode(id, "i8042", (AddressRange(AddressSpace.PIO, base, 5),))
