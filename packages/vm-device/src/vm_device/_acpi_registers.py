"""The registers of hardware-reduced ACPI that end or restart a machine (ACPI 6.5, 4.8.3.6 and 4.8.3.7)."""

import threading
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._errors import PlatformError, SavedStateError
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, RegisterSpec

_SLP_EN: Final = 0x20
_WAK_STS: Final = 0x80

_RESET_VECTOR: Final = 0xF_FFF0


class AcpiRegisters:
    """Sleep control (offset 0), sleep status (offset 1) and reset (offset 2), one byte each.

    Args:
        on_reset: called when the guest writes `reset_value` to the reset register.
        on_sleep: called with SLP_TYP (0 .. 7) when the guest writes SLP_EN. Both run in the vCPU's thread
            and must not block.
        reset_value: 0 .. 255, the FADT's RESET_VALUE.

    Raises:
        PlatformError: reset_value is no byte.
    """

    SIZE = 3
    """Ports."""

    def __init__(
        self, on_reset: Callable[[], object], on_sleep: Callable[[int], object], *, reset_value: int = 1
    ) -> None:
        if not 0 <= reset_value <= 0xFF:
            raise PlatformError("reset_value", reset_value, "must be 0..0xff")
        self._on_reset = on_reset
        self._on_sleep = on_sleep
        self.reset_value = reset_value
        self._lock = threading.Lock()
        self._sleep_type = 0
        self._wake_status = False

    def read(self, offset: int, size: int) -> int:
        """Read registers; SLP_EN is write-only and reads 0, the reset register reads 0."""
        registers = (self._sleep_type << 2, _WAK_STS if self._wake_status else 0, 0)
        return sum(registers[offset + i] << 8 * i for i in range(size) if offset + i < self.SIZE)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write registers; a wide access writes consecutive ones."""
        for i in range(size):
            self._write8(offset + i, value >> 8 * i & 0xFF)

    def _write8(self, offset: int, value: int) -> None:
        if offset == 0:
            with self._lock:
                self._sleep_type = sleep_type = value >> 2 & 7
            if value & _SLP_EN:
                self._on_sleep(sleep_type)
        elif offset == 1 and value & _WAK_STS:
            with self._lock:
                self._wake_status = False
        elif offset == 2 and value == self.reset_value:
            self._on_reset()

    def wake(self) -> None:
        """Set WAK_STS, as a machine does that returns from sleep; the guest clears it by writing 1."""
        with self._lock:
            self._wake_status = True

    def state(self) -> "vm_device.AcpiRegistersState":
        """Return the saved state."""
        with self._lock:
            return vm_device.AcpiRegistersState(self._sleep_type, self._wake_status)

    @classmethod
    def from_state(
        cls,
        state: "vm_device.AcpiRegistersState",
        on_reset: Callable[[], object],
        on_sleep: Callable[[int], object],
        *,
        reset_value: int = 1,
    ) -> "AcpiRegisters":
        """Rebuild the registers; arguments as for the class.

        Raises:
            SavedStateError: unknown version, or a sleep type above 7.
        """
        check_saved(state)
        if not 0 <= state.sleep_type <= 7:
            raise SavedStateError("sleep_type", state.sleep_type, "0..7")
        device = cls(on_reset, on_sleep, reset_value=reset_value)
        device._sleep_type, device._wake_status = state.sleep_type, state.wake_status
        return device

    @staticmethod
    def describe(id: str = "acpi", base: int = 0x600) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: three ports at `base`, no HID (the FADT names them instead)."""
        return DeviceNode(id, "acpi-registers", (AddressRange(AddressSpace.PIO, base, AcpiRegisters.SIZE),))

    def registers(self, base: int = 0x600) -> tuple[AddressRange, AddressRange, RegisterSpec]:
        """Return (sleep control, sleep status, reset) as `Platform` wants them.

        Args:
            base: first port, 0 .. 0xFFFD.

        Raises:
            PlatformError: base out of range.
        """
        control, status, reset = (AddressRange(AddressSpace.PIO, base + i, 1) for i in range(3))
        return control, status, RegisterSpec(reset, self.reset_value)

    def reset_vector(self, base: int = 0x600) -> tuple[int, bytes]:
        """Return (guest address, code) of a reset vector that writes the reset register.

        Linux on hardware-reduced ACPI without EFI ignores the FADT's reset register: it reboots as on
        an EFI machine, then by a jump to F000:FFF0 in real mode (arch/x86/kernel/reboot.c). Without
        code there it would run through zeros for ever.

        Args:
            base: first port of the registers, 0 .. 0xFFFD.

        Raises:
            PlatformError: base out of range.
        """
        port = self.registers(base)[2].range.base
        # mov dx, port; mov al, value; out dx, al; hlt; jmp to the hlt
        code = b"\xba%b\xb0%c\xee\xf4\xeb\xfd" % (port.to_bytes(2, "little"), self.reset_value)
        return _RESET_VECTOR, code
