"""The tables of an Arm machine: built, judged by iasl, read back."""

import struct
from itertools import product

import attrs
import pytest
from acpi_tables import (
    Gicc,
    Gicd,
    GicIts,
    GicRedistributor,
    SerialPort,
    UnsupportedPlatformError,
    aml,
    build_tables,
    parse_tables,
)
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import Pl011, Pl031
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    GicNode,
    InterruptSpec,
    MemoryNode,
    Platform,
)

ADDRESS = 0x4000_0000


def mmio(base, size):
    """A range of the MMIO space."""
    return AddressRange(AddressSpace.MMIO, base, size)


DISK = DeviceNode("v0", "virtio_mmio", (mmio(0xA00_0000, 0x200),), (InterruptSpec(48),), hid="LNRO0005")
PVPANIC = DeviceNode("pvpanic", "pvpanic", (mmio(0x902_0000, 2),), hid="QEMU0001")
ARM = Platform(
    "aarch64",
    cpus=(CpuNode(0, 0), CpuNode(1, 0x100, online=False)),
    memory=(MemoryNode(0x4000_0000, 1 << 30),),
    devices=(Pl011.describe(), Pl031.describe(), PVPANIC, DISK),  # as the reference VMM's machine
    gic=GicNode(mmio(0x800_0000, 0x1_0000), mmio(0x80A_0000, 0xF6_0000), mmio(0x808_0000, 0x2_0000)),
)


def read_back(tables):
    """The tables as a guest finds them."""
    return parse_tables(lambda at, size: tables.blob[at - ADDRESS :][:size], ADDRESS)


def test_the_reader_finds_the_machine():
    """Processors and GIC, timers, console, PSCI, devices."""
    found = read_back(build_tables(ARM, ADDRESS))
    assert [table.signature for table in found.tables] == ["XSDT", "FACP", "APIC", "GTDT", "SPCR", "DSDT"]
    assert found.madt().entries == (
        Gicc(0, 0),
        Gicc(1, 0x100, online=False),
        Gicd(0x800_0000),
        GicRedistributor(0x80A_0000, 0xF6_0000),
        GicIts(0, 0x808_0000),
    )
    assert (found.fadt().arm_boot_arch, found.fadt().boot_arch) == (3, 0)
    gtdt = found.gtdt()
    assert (gtdt.virtual.gsi, gtdt.virtual.active_low, gtdt.virtual.always_on) == (27, True, True)
    spcr = found.spcr()
    assert (spcr.port, spcr.address.address, spcr.gsi, spcr.gic) == (SerialPort.PL011, 0x900_0000, 33, True)
    _, _, uart, pvpanic, disk = aml.parse(found.aml())[0].children  # no HID, no device: the clock
    assert uart.child("_HID").children[0].value == "ARMH0011"
    assert pvpanic.child("_HID").children[0].value == "QEMU0001"
    assert aml.interrupt([48], edge=True, active_low=False) in aml.split_resources(
        disk.child("_CRS").children[0].value
    )


@pytest.mark.parametrize("signature", ["DSDT", "FACP", "APIC", "GTDT", "SPCR"])
def test_iasl_reads_and_rebuilds_each_table(iasl, signature):
    """No error, no warning, and the same bytes again."""
    table = build_tables(ARM, ADDRESS).table(signature).data
    assert iasl().round_trip(table)[36:] == table[36:]


def with_places(*counts):
    """The machine with so many sockets, dies of each, cores of those and threads, numbered in no order."""
    places = sorted(product(*map(range, counts)), key=lambda place: place[::-1])
    cpus = tuple(CpuNode(index, 3 * index, place=place) for index, place in enumerate(places))
    return attrs.evolve(ARM, cpus=cpus)


def linux_groups(table, uid):
    """(is a thread, core, cluster, package) of a processor, as Linux reads it (drivers/acpi/pptt.c, 6.1)."""
    found, at = {}, 36
    while at < len(table):
        kind, size, flags, parent, number = struct.unpack_from("<BB2xIII", table, at)
        assert kind == 0
        found[at] = (flags, parent, number)
        at += size
    (core,) = (at for at, (flags, _, number) in found.items() if flags & 10 == 10 and number == uid)
    flags = found[core][0]
    if is_thread := bool(flags & 4):
        core = found[core][1]
    cluster = package = found[core][1]
    while not found[package][0] & 1:
        package = found[package][1]
    return is_thread, core, cluster, package


COUNTS = st.tuples(*[st.integers(1, 3)] * 4)


@given(COUNTS)
@example((1, 1, 1, 1))
def test_linux_finds_who_shares_what(counts):
    """Two processors share a group if their places say so; a core is a group only with several threads."""
    machine = with_places(*counts)
    table = build_tables(machine, ADDRESS).table("PPTT").data
    views = [linux_groups(table, cpu.index) for cpu in machine.cpus]
    assert {view[0] for view in views} == {counts[3] > 1}
    for one, view in zip(machine.cpus, views, strict=True):
        for other, seen in zip(machine.cpus, views, strict=True):
            for level, depth in ((1, 3), (2, 2), (3, 1)):
                assert (view[level] == seen[level]) == (one.place[:depth] == other.place[:depth])


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (2, 1, 3, 2)])
def test_iasl_rebuilds_the_groups(iasl, counts):
    """Without a complaint; nothing is told where nothing is known."""
    table = build_tables(with_places(*counts), ADDRESS).table("PPTT").data
    assert iasl().round_trip(table)[36:] == table[36:]
    with pytest.raises(KeyError):
        build_tables(ARM, ADDRESS).table("PPTT")


def test_without_a_uart_there_is_no_console_table():
    """The SPCR is of a PL011; the GTDT is always there."""
    found = read_back(build_tables(attrs.evolve(ARM, devices=(DISK,)), ADDRESS))
    with pytest.raises(KeyError, match="SPCR"):
        found.spcr()
    assert found.gtdt().el1.gsi == 30


def test_a_machine_without_a_gic_is_refused():
    """No processor could take an interrupt."""
    with pytest.raises(UnsupportedPlatformError, match="'gic': an AArch64 machine needs one"):
        build_tables(attrs.evolve(ARM, gic=None), ADDRESS)
