"""The FADT of a hardware-reduced machine (ACPI 6.5 §5.2.9)."""

import struct
from enum import IntFlag

import attrs
from vm_device import Value

from acpi_tables._errors import EncodingError, TableError
from acpi_tables._header import HEADER, GenericAddress, sdt

__all__ = ("BootArch", "Fadt", "FadtFlags")

LENGTH = 276
_REVISION, _MINOR = 6, 3
_HYPERVISOR_ID = b"PYVMM\0\0\0"
_PM_TIMER, _PM_TIMER_SIZE, _X_PM_TIMER = 76, 91, 208
_DSDT, _BOOT_ARCH, _FLAGS, _RESET, _RESET_VALUE, _ARM_BOOT_ARCH = 40, 109, 112, 116, 128, 129
_X_DSDT, _SLEEP_CONTROL, _SLEEP_STATUS, _HYPERVISOR = 140, 244, 256, 268
_TIMER_SIZE = 4


class FadtFlags(IntFlag):
    """Fixed feature flags a hardware-reduced machine uses (ACPI 6.5 §5.2.9, table 5.10)."""

    WBINVD = 1 << 0
    POWER_BUTTON = 1 << 4
    SLEEP_BUTTON = 1 << 5
    RESET_REGISTER = 1 << 10
    HEADLESS = 1 << 12
    HW_REDUCED = 1 << 20


class BootArch(IntFlag):
    """IAPC_BOOT_ARCH (ACPI 6.5 §5.2.9.3); each bit saves a guest from probing, or makes it probe."""

    LEGACY_DEVICES = 1 << 0
    I8042 = 1 << 1
    NO_VGA = 1 << 2
    NO_MSI = 1 << 3
    NO_ASPM = 1 << 4
    NO_CMOS_RTC = 1 << 5


_BASE_FLAGS = FadtFlags.WBINVD | FadtFlags.POWER_BUTTON | FadtFlags.SLEEP_BUTTON | FadtFlags.HW_REDUCED


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Fadt(Value):
    """What the FADT says.

    Attributes:
        dsdt: guest-physical address of the DSDT.
        boot_arch: IAPC_BOOT_ARCH of x86 (see ``BootArch``).
        arm_boot_arch: ARM_BOOT_ARCH, 16 bits.
        flags: fixed feature flags; RESET_REGISTER is added by ``encode`` when there is a reset register.
        reset: the reset register, one byte wide, or None.
        reset_value: the byte to write there.
        sleep_control: the sleep control register, one byte wide, or None.
        sleep_status: the sleep status register, one byte wide, or None.
        pm_timer: the power management timer, four bytes wide, or None. The specification has guests of a
            hardware-reduced machine ignore it (§5.2.9); Linux on x86 uses one that has a port.
    """

    dsdt: int
    boot_arch: BootArch = BootArch.NO_VGA
    arm_boot_arch: int = 0
    flags: int = _BASE_FLAGS
    reset: GenericAddress | None = None
    reset_value: int = 0
    sleep_control: GenericAddress | None = None
    sleep_status: GenericAddress | None = None
    pm_timer: GenericAddress | None = None

    def encode(self) -> bytes:
        """Build the table, revision 6.3.

        Returns:
            276 bytes whose byte sum is 0.

        Raises:
            EncodingError: a register that is not as wide as said above, or a value that does not fit its
                field.
        """
        flags = int(self.flags) | (FadtFlags.RESET_REGISTER if self.reset else 0)
        table = bytearray(LENGTH)
        _put(table, "<I", _DSDT, self.dsdt if self.dsdt < 1 << 32 else 0, "DSDT address")
        _put(table, "<H", _BOOT_ARCH, int(self.boot_arch), "IAPC_BOOT_ARCH")
        _put(table, "<I", _FLAGS, flags, "FADT flags")
        _put(table, "<B", _RESET_VALUE, self.reset_value, "reset value")
        _put(table, "<HB", _ARM_BOOT_ARCH, self.arm_boot_arch, "ARM_BOOT_ARCH", _MINOR)
        _put(table, "<Q", _X_DSDT, self.dsdt, "DSDT address")
        for offset, register in self._registers():
            table[offset : offset + 12] = _one_byte(register).encode()
        if self.pm_timer is not None:
            _put_timer(table, self.pm_timer)
        table[_HYPERVISOR:] = _HYPERVISOR_ID
        return sdt(b"FACP", _REVISION, bytes(table[HEADER.size :]))

    def _registers(self) -> tuple[tuple[int, GenericAddress | None], ...]:
        return (_RESET, self.reset), (_SLEEP_CONTROL, self.sleep_control), (_SLEEP_STATUS, self.sleep_status)

    @classmethod
    def decode(cls, table: bytes, address: int = 0) -> "Fadt":
        """Read a FADT of any revision that has the hardware-reduced registers (5 and later).

        Args:
            table: the whole table.
            address: where it was found, for the error only.

        Returns:
            The fields this class knows; the rest is ignored.

        Raises:
            TableError: the table is shorter than 268 bytes.
        """
        if len(table) < _HYPERVISOR:
            raise TableError("FACP", address, f"{len(table):#x} bytes, less than {_HYPERVISOR:#x}")
        (dsdt32,) = struct.unpack_from("<I", table, _DSDT)
        (dsdt64,) = struct.unpack_from("<Q", table, _X_DSDT)
        (flags,) = struct.unpack_from("<I", table, _FLAGS)
        (port,) = struct.unpack_from("<I", table, _PM_TIMER)
        old_timer = GenericAddress(1, port, _TIMER_SIZE) if port else None
        return cls(
            dsdt=dsdt64 or dsdt32,
            boot_arch=BootArch(struct.unpack_from("<H", table, _BOOT_ARCH)[0]),
            arm_boot_arch=struct.unpack_from("<H", table, _ARM_BOOT_ARCH)[0],
            flags=flags,
            reset=_register(table, _RESET),
            reset_value=table[_RESET_VALUE],
            sleep_control=_register(table, _SLEEP_CONTROL),
            sleep_status=_register(table, _SLEEP_STATUS),
            pm_timer=_register(table, _X_PM_TIMER) or old_timer,
        )


def _put(table: bytearray, layout: str, offset: int, value: int, field: str, *rest: int) -> None:
    try:
        struct.pack_into(layout, table, offset, value, *rest)
    except struct.error:
        raise EncodingError(field, value, f"a value of layout {layout!r}") from None


def _put_timer(table: bytearray, register: GenericAddress) -> None:
    if register.size != _TIMER_SIZE:
        raise EncodingError("size of the PM timer", register.size, "4 bytes (ACPI 6.5 §4.8.3.3)")
    table[_X_PM_TIMER : _X_PM_TIMER + 12] = register.encode()
    if register.space == 1:  # what was there before the X fields can only name a port
        _put(table, "<I", _PM_TIMER, register.address, "PM timer port")
        _put(table, "<B", _PM_TIMER_SIZE, _TIMER_SIZE, "PM timer size")


def _one_byte(register: GenericAddress | None) -> GenericAddress:
    if register is not None and register.size != 1:
        raise EncodingError("register size", register.size, "1 byte (ACPI 6.5 §4.8.3.6, §4.8.3.7)")
    return register or GenericAddress()


def _register(table: bytes, offset: int) -> GenericAddress | None:
    register = GenericAddress.decode(table[offset : offset + 12])
    return register if register != GenericAddress() else None
