"""The generation ID and the PM timer: from the platform description into DSDT and FADT, judged by iasl."""

import re

import attrs
import pytest
from acpi_tables import EncodingError, Fadt, GenericAddress, UnsupportedPlatformError, aml, build_tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vm_device import PmTimer, VmGenId
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

ADDRESS = 0xE_0000
ADDRESSES = st.integers(0, (1 << 60) - 1).map(lambda cell: 16 * cell)


def _described(address, gsi):
    return VmGenId(None, address, list).describe(gsi=gsi)


def _with(machine, *nodes):
    return build_tables(attrs.evolve(machine, devices=(*machine.devices, *nodes)), ADDRESS)


def _system(tables):
    """The devices in _SB."""
    *_, system = aml.parse(tables.table("DSDT").data[36:])
    return system


@pytest.mark.parametrize("gsi", [None, 10])
def test_iasl_reads_and_rebuilds_the_generation_id(machine, iasl, gsi):
    """Its one complaint is that the HID Linux wants does not end in digits (6035)."""
    table = _with(machine, _described(0x1_2345_6FF0, gsi)).table("DSDT").data
    compiler = iasl()
    source = compiler.disassemble(table)
    assert 'Name (_CID, "VM_Gen_Counter")' in source
    assert 'Name (_DDN, "VM_Gen_Counter")' in source
    assert bool(re.search(r"Notify \((\\_SB\.)?D003, 0x80\)", source)) is (gsi is not None)
    assert compiler.assemble(source, "-vw", "6035")[36:] == table[36:]


@pytest.mark.parametrize("gsi", [None, 10])
def test_what_the_guest_finds(machine, gsi):
    """Halves of the address, and a generic event device with the interrupt, if it has one."""
    system = _system(_with(machine, _described(0x1_2345_6FF0, gsi)))
    device = system.child("D003")
    assert [half.value for half in device.child("ADDR").children[0].children] == [0x2345_6FF0, 1]
    assert device.child("_HID").children[0].value == "VMGENCTR"
    names = [node.name for node in device.children]
    assert "_CRS" not in names
    if gsi is None:
        assert "G003" not in [node.name for node in system.children]
    else:
        events = system.child("G003")
        assert events.child("_HID").children[0].value == "ACPI0013"
        line = aml.interrupt([gsi], edge=True, active_low=False)
        assert events.child("_CRS").children[0].value == line + b"\x79\x00"
        assert events.child("_EVT") is not None


def test_an_interrupt_notifies_the_device(machine, interpret):
    """The interpreter that Linux has runs the event method, and reads the address."""
    table = _with(machine, _described(0x1_2345_6FF0, 10)).table("DSDT").data
    address, event = interpret(table, [r"\_SB.D003.ADDR", r"\_SB.G003._EVT 10"])
    assert re.findall(r"\[Integer\] = 0*([0-9A-F]+)", address) == ["23456FF0", "1"]
    assert re.search(r"Device Notify on \[D003\] \S+ Value 0x80", event)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the machine never changes
@given(address=ADDRESSES)
def test_every_address(machine, address):
    """Of 64 bits, in two halves of 32."""
    package = _system(_with(machine, _described(address, None))).child("D003").child("ADDR").children[0]
    low, high = (half.value for half in package.children)
    assert (high << 32 | low, low < 1 << 32) == (address, True)


@pytest.mark.parametrize("properties", [{}, {"address": "here"}, {"address": -16}, {"address": 1 << 64}])
def test_an_identifier_without_a_place(machine, properties):
    """The error names the node."""
    node = DeviceNode("generation", "vmgenid", (), hid="VMGENCTR", properties=properties)
    with pytest.raises(UnsupportedPlatformError, match=r"'generation': address .* needs one of 64 bits"):
        _with(machine, node)


@pytest.mark.parametrize("base", [0x608, 0xB008])
def test_the_pm_timer(machine, iasl, base):
    """In both fields of the FADT, as iasl reads them; a machine without one has zeros there."""
    table = _with(machine, PmTimer.describe(base=base)).table("FACP").data
    assert Fadt.decode(table).pm_timer == GenericAddress(1, base, 4)
    source = iasl().disassemble(table)
    assert f"PM Timer Block Address : {base:08X}" in source
    assert "PM Timer Block Length : 04" in source
    compiler = iasl()
    assert compiler.round_trip(table)[36:] == table[36:]
    without = build_tables(machine, ADDRESS).table("FACP").data
    assert (without[76:80], without[91], without[208:220]) == (bytes(4), 0, bytes(12))
    assert Fadt.decode(without).pm_timer is None


def test_a_timer_in_the_old_field_alone():
    """Counts where the new one is zero (ACPI 6.5 §5.2.9)."""
    table = bytearray(Fadt(dsdt=0, pm_timer=GenericAddress(1, 0x608, 4)).encode())
    table[208:220] = bytes(12)
    assert Fadt.decode(bytes(table)).pm_timer == GenericAddress(1, 0x608, 4)


def test_a_timer_in_memory():
    """Has no port to put into the old field."""
    table = Fadt(dsdt=0, pm_timer=GenericAddress(0, 1 << 40, 4)).encode()
    assert (table[76:80], table[91]) == (bytes(4), 0)
    assert Fadt.decode(table).pm_timer == GenericAddress(0, 1 << 40, 4)


def test_a_timer_of_another_width(machine):
    """ACPI wants four bytes."""
    narrow = DeviceNode("pm", "pm-timer", (AddressRange(AddressSpace.PIO, 0x608, 2),))
    with pytest.raises(UnsupportedPlatformError, match=r"pm-timer.*0x2 bytes at 0x608; ACPI wants 4 bytes"):
        _with(machine, narrow)
    with pytest.raises(EncodingError, match="size of the PM timer"):
        Fadt(dsdt=0, pm_timer=GenericAddress(1, 0x608, 2)).encode()
