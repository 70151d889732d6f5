"""The FADT: fields, boot architecture flags, refusals."""

import attrs
import pytest
from acpi_tables import BootArch, EncodingError, Fadt, FadtFlags, GenericAddress, TableError, arch, byte_sum
from hypothesis import given
from hypothesis import strategies as st
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

REGISTERS = st.none() | st.builds(
    GenericAddress, st.sampled_from([0, 1]), st.integers(0, (1 << 64) - 1), st.just(1)
)


@given(st.integers(1, (1 << 64) - 1), REGISTERS, REGISTERS, REGISTERS, st.integers(0, 255))
def test_fields_round_trip(dsdt, reset, control, status, value):
    """What is encoded decodes to the same, with the reset flag set exactly when there is a reset register."""
    fadt = Fadt(dsdt=dsdt, reset=reset, sleep_control=control, sleep_status=status, reset_value=value)
    table = fadt.encode()
    again = Fadt.decode(table)
    assert len(table) == 276
    assert byte_sum(table) == 0
    assert bool(again.flags & FadtFlags.RESET_REGISTER) is (reset is not None)
    assert attrs.evolve(again, flags=fadt.flags) == fadt
    assert again.flags & FadtFlags.HW_REDUCED


@pytest.mark.parametrize(
    ("hids", "flags"),
    [
        ((), BootArch.NO_VGA | BootArch.NO_CMOS_RTC),
        (("PNP0501",), BootArch.NO_VGA | BootArch.NO_CMOS_RTC),
        (("PNP0303",), BootArch.NO_VGA | BootArch.NO_CMOS_RTC | BootArch.I8042),
        (("PNP0B00",), BootArch.NO_VGA),
    ],
)
def test_only_listed_devices_are_announced(machine, hids, flags):
    """The platform decides what a guest probes for."""
    nodes = tuple(
        DeviceNode(hid, "legacy", (AddressRange(AddressSpace.PIO, 0x60 + 8 * n, 8),), hid=hid)
        for n, hid in enumerate(hids)
    )
    assert arch.for_arch("x86_64").boot_arch(attrs.evolve(machine, devices=nodes)) == flags


@pytest.mark.parametrize(
    "change",
    [
        {"dsdt": 1 << 64},
        {"reset_value": 256},
        {"arm_boot_arch": 1 << 16},
        {"reset": GenericAddress(1, 0x602, 2)},
        {"sleep_control": GenericAddress(1, 1 << 64, 1)},
        {"sleep_status": GenericAddress(1, 0x600, 3)},
    ],
)
def test_what_does_not_fit_is_refused(change):
    """Nothing is clipped."""
    with pytest.raises(EncodingError):
        Fadt(**({"dsdt": 0x1000} | change)).encode()


def test_a_short_table_is_refused():
    """ACPI 1 to 4 tables have no sleep registers."""
    with pytest.raises(TableError, match="FACP at 0x2000: 0xf4 bytes, less than 0x10c"):
        Fadt.decode(bytes(244), 0x2000)
