"""An AArch64 machine from start to end, with Images of a few instructions on the real /dev/kvm."""

import gc
import os
import struct
import threading
from contextlib import contextmanager
from uuid import UUID

import attrs
import pytest
from acpi_tables import Gicc, GicRedistributor, aml, parse_tables
from linux_loader.fdt import parse_fdt
from vm_device.platform import AddressRange, AddressSpace, DeviceNode
from vmm_reference import (
    CpusConfig,
    DiskConfig,
    End,
    EndReason,
    MemoryConfig,
    PlatformConfig,
    Tables,
    VmConfig,
    Vmm,
)

a64 = pytest.importorskip("arm64_code", reason="its assembler is in the repository's tools")
Code = a64.Code

pytestmark = pytest.mark.arm64

UART, PVPANIC = 0x900_0000, 0x902_0000
DEVICE = 0x1FFF_0000  # the test's own, near the end of the window
RAM = MemoryConfig(16 << 20)
ACPI_20 = UUID("8868e871-e4f1-11d3-bc22-0080c73c8881").bytes_le  # UEFI 2.10, section 4.6


@attrs.define
class Probe:
    """A device that takes note of what is written to it."""

    base: int = DEVICE
    written: list[int] = attrs.field(factory=list)

    def read(self, offset, size):
        return 0x1234_5678

    def write(self, offset, size, value):
        self.written.append(value)

    def describe(self):
        return DeviceNode("probe", "probe", (AddressRange(AddressSpace.MMIO, self.base, 0x1000),))


def end_by(function):
    """Code that calls PSCI with nothing but the function's number."""
    return lambda code: code.move(0, function).hvc()


ENDS = {
    "poweroff": end_by(a64.PSCI_SYSTEM_OFF),
    "reset": end_by(a64.PSCI_SYSTEM_RESET),
    "panic": lambda code: code.poke(PVPANIC, 1, 1),
    "shutdown": lambda code: code.poke(PVPANIC, 4, 1),
}


@pytest.fixture
def config(tmp_path):
    """A function that configures a machine whose kernel is that code."""

    def make(code, **options):
        path = tmp_path / "Image"
        path.write_bytes(a64.image(bytes(code)))
        return VmConfig(path, memory=RAM, **options)

    return make


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("poweroff", End(EndReason.POWEROFF)),
        ("reset", End(EndReason.RESET)),
        ("panic", End(EndReason.PANIC, "the guest's kernel panicked")),
        ("shutdown", End(EndReason.POWEROFF)),
    ],
)
def test_every_end(config, end, expected):
    """What the guest printed arrived, and its end is named; everything is given back."""
    gc.collect()  # descriptors of other tests' garbage
    before, output = sorted(os.listdir("/proc/self/fd")), []
    code = Code()
    for char in b"hello\n":
        code.poke(UART, char, 1)
    code = ENDS[end](code)
    with Vmm(config(code.jump(len(code))), serial_out=output.append) as vmm:
        vmm.boot()
        assert vmm.wait(250) == expected
    assert b"".join(output) == b"hello\n"
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("vcpu", "vmm"))]


@contextmanager
def ended(machine, device):
    """A machine whose guest powered off: its memory, and the tree, whose address the guest wrote first."""
    with Vmm(machine, serial_out=lambda _: None, devices=[device]) as vmm:
        vmm.boot()
        assert vmm.wait(250) == End(EndReason.POWEROFF)
        memory = vmm.machine.memory.memory()
        size = int.from_bytes(memory.read(device.written[0] + 4, 4), "big")
        yield memory, parse_fdt(memory.read(device.written[0], size)).root


@pytest.fixture
def eight(config, tmp_path):
    """A function that runs a machine with eight processors and a disk."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    disk = DiskConfig(tmp_path / "disk")

    def run(tables):
        code = ENDS["poweroff"](Code().move(1, DEVICE).store(0, 1, 8))
        platform = PlatformConfig(tables=tables)
        return ended(config(code, cpus=CpusConfig(8, 8), disks=(disk,), platform=platform), Probe())

    return run


def test_what_a_guest_starts_with(config):
    """X0 is the device tree's address; devices answer, what nobody has reads as ones."""
    device = Probe()
    code = Code().move(1, DEVICE).store(0, 1, 8).load(2, 1).store(2, 1).move(3, DEVICE - 0x1000).load(2, 3)
    with ended(config(ENDS["poweroff"](code.store(2, 1))), device) as (_, root):
        names = {child.name for child in root.children}
    assert device.written[1:] == [0x1234_5678, 0xFFFF_FFFF]
    assert names >= {"chosen", "cpus", "memory@40000000", "psci", "timer"}


@pytest.mark.parametrize("tables", [None, Tables.FDT])
def test_the_machine_in_a_device_tree(eight, tables):
    """By default, and when it is asked for: processors, and the disk in the window."""
    with eight(tables) as (_, root):
        nodes = {node.name: node for node in root.children}
    assert nodes.keys() >= {"virtio_mmio@10000000", "serial@9000000", "rtc@9010000", "pvpanic@9020000"}
    assert [node.name for node in nodes["cpus"].children] == [f"cpu@{index}" for index in range(8)]


def test_the_machine_in_acpi_tables(eight):
    """The tree leads to the system table, that to the RSDP: processors, GIC, console, timer, the disk."""
    with eight(Tables.ACPI) as (memory, root):
        (chosen,) = root.children
        system = int.from_bytes(chosen.properties["linux,uefi-system-table"], "big")
        count, entries = struct.unpack("<QQ", memory.read(system + 104, 16))
        found = dict(struct.unpack("<16sQ", memory.read(entries + 24 * at, 24)) for at in range(count))
        tables = parse_tables(memory.read, found[ACPI_20])
    controllers = tables.madt().entries
    assert [entry.mpidr for entry in controllers if isinstance(entry, Gicc)] == list(range(8))
    assert GicRedistributor(0xC00_0000, 8 * 0x2_0000) in controllers
    assert (tables.spcr().address.address, tables.gtdt().virtual.gsi) == (UART, 27)
    (bus,) = aml.parse(tables.aml())
    devices = [[entry.children[0].value for entry in node.children] for node in bus.children]
    crs = aml.memory32_fixed(0x1000_0000, 0x1000) + aml.interrupt([48], edge=True, active_low=False)
    assert ["LNRO0005", 0, 1, crs + b"\x79\0"] in devices  # _HID, _UID, _CCA, _CRS
