"""The device tree of a machine: bindings, dtc's own checks, and agreement with the description."""

from itertools import product

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linux_loader import FdtBuildError, load_image
from linux_loader.fdt import Fdt, parse_fdt, platform_tree
from linux_loader.testing import RecordingMemory, build_image
from vm_device import Pl011, Pl031, Serial16550, VmGenId
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    GicNode,
    InterruptSpec,
    IoApicNode,
    MemoryNode,
    Platform,
    Trigger,
)
from vmm_testhost.pytest_plugin import LONG


def mmio(base, size=0x1000):
    """A range of the MMIO space."""
    return AddressRange(AddressSpace.MMIO, base, size)


def virtio(number, line, base=0xA00_0000):
    """A virtio-mmio device as its transport describes it."""
    return DeviceNode(
        f"v{number}", "virtio_mmio", (mmio(base + number * 0x1000, 0x200),), (line,),
        hid="LNRO0005", compatible=("virtio,mmio",), uid=number,
    )  # fmt: skip


GIC = GicNode(mmio(0x800_0000, 0x1_0000), mmio(0x80A_0000, 0xF6_0000), mmio(0x808_0000, 0x2_0000))
ARM = Platform(
    "aarch64",
    cpus=(CpuNode(0, 0), CpuNode(1, 1), CpuNode(2, 0x100, online=False)),
    memory=(MemoryNode(0x4000_0000, 1 << 30),),
    devices=(
        Pl011.describe(),
        Pl031.describe(),
        virtio(0, InterruptSpec(48)),
        DeviceNode("hidden", "timer", (mmio(0x902_0000),)),
    ),
    gic=GIC,
)  # fmt: skip
PC = Platform(
    "x86_64",
    cpus=(CpuNode(0, 0), CpuNode(1, 2)),
    memory=(MemoryNode(0, 1 << 30),),
    devices=(Serial16550.describe(), virtio(0, InterruptSpec(5), 0xD000_0000)),
    ioapics=(IoApicNode(0, 0xFEC0_0000),),
)


def with_places(*counts):
    """The Arm machine with so many sockets, dies of each, cores of those and threads, in an odd order."""
    places = sorted(product(*map(range, counts)), key=lambda place: place[::-1])
    cpus = tuple(CpuNode(index, 3 * index, place=place) for index, place in enumerate(places))
    return attrs.evolve(ARM, cpus=cpus)


MACHINES = {"aarch64": ARM, "grouped": with_places(2, 1, 2, 2), "x86_64": PC}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_dtc_has_nothing_to_complain_of(machine, dtc_complaints):
    """The compiler's checks of units, cells, ranges, parents and interrupts pass."""
    assert dtc_complaints(platform_tree(machine).encode()) == ""


def test_the_arm_machine():
    """Each node as its binding wants it."""
    tree = parse_fdt(platform_tree(ARM).encode())
    assert [node.name for node in tree.node("/cpus").children] == ["cpu@0", "cpu@1"]
    assert tree.node("/cpus/cpu@1").strings("enable-method") == ("psci",)
    assert tree.node("/memory@40000000").u64s("reg") == (0x4000_0000, 1 << 30)
    assert tree.node("/psci").strings("method") == ("hvc",)
    gic = tree.node("/interrupt-controller@8000000")
    assert tree.by_phandle(tree.root.u32s("interrupt-parent")[0]) is gic
    assert gic.u64s("reg") == (0x800_0000, 0x1_0000, 0x80A_0000, 0xF6_0000)
    assert gic.child("msi-controller@8080000").u64s("reg") == (0x808_0000, 0x2_0000)
    uart = tree.node("/serial@9000000")
    assert uart.u32s("interrupts") == (0, 1, 4)
    assert uart.strings("clock-names") == ("uartclk", "apb_pclk")
    assert [tree.by_phandle(number).name for number in uart.u32s("clocks")] == ["apb-pclk"] * 2
    assert tree.node("/rtc@9010000").strings("clock-names") == ("apb_pclk",)
    assert tree.node("/virtio_mmio@a000000").u32s("interrupts") == (0, 16, 1)
    assert tree.node("/timer").u32s("interrupts")[:3] == (1, 13, 8)
    with pytest.raises(KeyError, match="timer@9020000"):
        tree.node("/timer@9020000")


def test_the_pc():
    """Ports stand below an ISA bus, interrupts are pins of the I/O APIC."""
    tree = parse_fdt(platform_tree(PC).encode())
    assert tree.node("/bus/isa@0/serial@i3f8").u32s("reg") == (1, 0x3F8, 8)
    assert tree.node("/bus/isa@0/serial@i3f8").u32s("interrupts") == (4, 3)
    assert tree.node("/virtio_mmio@d0000000").u32s("interrupts") == (5, 3)
    assert tree.by_phandle(tree.root.u32s("interrupt-parent")[0]).name == "ioapic@fec00000"
    assert [node.u32s("reg") for node in tree.node("/cpus").children] == [(0,), (2,)]


@given(st.tuples(*[st.integers(1, 3)] * 4))
@example((1, 1, 1, 1))
def test_places_become_a_cpu_map(counts):
    """By the binding of cpu-map: sockets, clusters, cores, and threads where a core has several."""
    machine = with_places(*counts)
    tree = parse_fdt(platform_tree(machine).encode())
    levels = ("socket", "cluster", "core", "thread") if counts[3] > 1 else ("socket", "cluster", "core")
    expected = {}
    for cpu in machine.cpus:
        path = "/".join(f"{level}{number}" for level, number in zip(levels, cpu.place, strict=False))
        expected[f"cpu-map/{path}"] = cpu.hw_id

    def leaves(node, path):
        if "cpu" in node.properties:
            assert not node.children
            yield path, tree.by_phandle(node.u32s("cpu")[0]).u32s("reg")[0]
        for child in node.children:
            yield from leaves(child, f"{path}/{child.name}")

    assert dict(leaves(tree.node("/cpus/cpu-map"), "cpu-map")) == expected


def test_a_cpu_map_has_no_holes_where_processors_are_off():
    """The binding counts siblings from 0 on; Linux stops at the first hole, and drops the whole map."""
    cpus = with_places(2, 1, 3, 1).cpus
    cpus = [attrs.evolve(cpu, online=cpu.place[0] == 1 and cpu.place[2] != 1) for cpu in cpus]
    tree = parse_fdt(platform_tree(attrs.evolve(ARM, cpus=cpus)).encode())
    cluster = tree.node("/cpus/cpu-map/socket0/cluster0")
    found = {node.name: tree.by_phandle(node.u32s("cpu")[0]).u32s("reg")[0] for node in cluster.children}
    on = {cpu.place[2]: cpu.hw_id for cpu in cpus if cpu.online}
    assert found == {"core0": on[0], "core1": on[2]}


LINES = st.builds(InterruptSpec, st.integers(16, 1019), st.sampled_from(Trigger), st.booleans())


@settings(max_examples=1000 if LONG else 40)
@given(
    st.lists(LINES, max_size=6, unique_by=lambda line: line.gsi),
    st.sets(st.integers(0, 1 << 39), min_size=1, max_size=4),
    st.dictionaries(
        st.sampled_from(["one", "two,x"]), st.integers(0, 1 << 63) | st.binary(max_size=9) | st.just("text")
    ),
)
def test_a_machine_reads_back_as_it_was_described(lines, ids, properties):
    """Ranges, interrupts, properties and processors are those of the description."""
    devices = [attrs.evolve(virtio(n, line), properties=properties) for n, line in enumerate(lines)]
    cpus = tuple(CpuNode(n, hw_id) for n, hw_id in enumerate(sorted(ids)))
    tree = parse_fdt(platform_tree(attrs.evolve(ARM, devices=tuple(devices), cpus=cpus)).encode())
    wide = tree.node("/cpus").u32s("#address-cells") == (2,)
    found = [node.u64s("reg") if wide else node.u32s("reg") for node in tree.node("/cpus").children]
    assert [reg[0] for reg in found] == sorted(ids)
    for device, line in zip(devices, lines, strict=True):
        node = tree.node(f"/virtio_mmio@{device.ranges[0].base:x}")
        assert node.u64s("reg") == (device.ranges[0].base, 0x200)
        kind, number, flags = node.u32s("interrupts")
        assert number + (16 if kind else 32) == line.gsi
        assert (flags in (1, 2), flags in (2, 8)) == (line.trigger is Trigger.EDGE, line.active_low)
        for name, value in properties.items():
            found = node.properties[name]
            if isinstance(value, int):
                assert int.from_bytes(found, "big") == value
            else:
                assert found == (b"text\0" if value == "text" else value)


def test_it_is_what_load_image_takes():
    """The machine's tree, filled in and written beside an arm64 kernel."""
    ram = [(node.base, node.size) for node in ARM.memory]
    loaded = load_image(
        RecordingMemory(ram), _kernel(), ram_ranges=ram, fdt=platform_tree(ARM), cmdline="quiet"
    )
    assert loaded.fdt.node("/chosen").strings("bootargs") == ("quiet",)
    assert isinstance(loaded.fdt, Fdt)


def generation(address, gsi):
    """The identifier of a machine."""
    return VmGenId(None, address, list).describe(gsi=gsi)


def moved(node, address):
    """The node with an address that the device itself would refuse."""
    return attrs.evolve(node, properties={"address": address})


@pytest.mark.parametrize(
    ("machine", "address", "gsi", "cells", "in_ram"),
    [
        (ARM, 0x4000_0FF0, 40, (0, 8, 1), True),
        (ARM, 0x902_0000, 41, (0, 9, 1), False),
        (PC, 0xF_F000, 23, (23, 3), True),
    ],
)
def test_the_generation_id(machine, dtc_complaints, address, gsi, cells, in_ram):
    """As microsoft,vmgenid has it; memory that the guest is told of is reserved, and not mapped."""
    described = attrs.evolve(machine, devices=(*machine.devices[:1], generation(address, gsi)))
    assert dtc_complaints(platform_tree(described).encode()) == ""
    tree = parse_fdt(platform_tree(described).encode())
    node = tree.node(f"/vmgenid@{address:x}")
    assert set(node.properties) == {"compatible", "reg", "interrupts"}
    assert node.strings("compatible") == ("microsoft,vmgenid",)
    assert (node.u64s("reg"), node.u32s("interrupts")) == ((address, 16), cells)
    assert ("reserved-memory" in [child.name for child in tree.root.children]) is in_ram
    if in_ram:
        kept = tree.node(f"/reserved-memory/vmgenid@{address:x}")
        assert kept.u64s("reg") == (address, 16)
        assert "no-map" in kept.properties


def _kernel():
    from linux_loader import KernelImage

    return KernelImage.from_bytes(build_image("aarch64", image_size=1 << 20))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (attrs.evolve(ARM, arch="sparc64"), "arch cannot be 'sparc64': one of aarch64, x86_64"),
        (attrs.evolve(ARM, gic=None), "gic cannot be None"),
        (attrs.evolve(ARM, devices=(virtio(0, InterruptSpec(5)),)), "interrupt of v0 cannot be 5"),
        (attrs.evolve(PC, ioapics=()), "ioapics cannot be"),
        (attrs.evolve(ARM, devices=(generation(0x4000_0000, None),)), "interrupt of vmgenid cannot be none"),
        (attrs.evolve(ARM, devices=(moved(generation(0, 40), -1),)), "address of vmgenid cannot be -0x1"),
        (attrs.evolve(PC, devices=(moved(generation(0, 5), 1 << 64),)), "address of .* 0..0xf+0"),
        (attrs.evolve(PC, ioapics=(IoApicNode(0, 0xFEC0_0000, 8),)), "interrupt of .* no pin"),
    ],
)
def test_what_a_tree_cannot_say_is_refused(machine, message):
    """The error names the part."""
    with pytest.raises(FdtBuildError, match=message):
        platform_tree(machine)
