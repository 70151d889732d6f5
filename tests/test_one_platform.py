"""One description of a machine, two emitters: a device tree and ACPI tables tell a guest the same."""

import struct

import attrs
import pytest
from acpi_tables import (
    Gicc,
    Gicd,
    GicIts,
    GicRedistributor,
    IoApic,
    LocalApic,
    aml,
    build_tables,
    parse_tables,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linux_loader.fdt import parse_fdt, platform_tree
from vm_device import (
    I8042,
    AcpiRegisters,
    BootTimer,
    CmosRtc,
    Pl011,
    Pl031,
    Pl061,
    Pvpanic,
    Serial16550,
)
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

ADDRESS = 0x4000_0000
MMIO, PIO = AddressSpace.MMIO, AddressSpace.PIO
EDGE, LEVEL = Trigger.EDGE, Trigger.LEVEL
# The second or third cell of an interrupt: the GIC's binding, and of_ioapic_type of Linux.
GIC_SENSE = {1: (EDGE, False), 2: (EDGE, True), 4: (LEVEL, False), 8: (LEVEL, True)}
APIC_SENSE = {0: (EDGE, True), 1: (LEVEL, False), 2: (LEVEL, True), 3: (EDGE, False)}
CHIPS = {"arm,gic-v3", "intel,ce4100-lapic", "intel,ce4100-ioapic"}


@attrs.frozen
class Found:
    """What one of the two says: devices as (ranges, interrupts), ids of processors, addresses of chips."""

    devices: frozenset[tuple[tuple[AddressRange, ...], tuple[InterruptSpec, ...]]]
    processors: tuple[int, ...]
    chips: tuple[int, ...]


def in_the_tree(platform):
    """Read a device tree as its bindings say."""
    tree = parse_fdt(platform_tree(platform).encode())
    arm = platform.arch == "aarch64"
    nodes = [node for node in tree.root.children if {"compatible", "reg"} <= set(node.properties)]
    chips = [node for node in nodes if CHIPS & {*node.strings("compatible")}]
    ports = () if arm else tree.node("/bus/isa@0").children
    devices = {
        *((windows(node.u64s("reg"), 2), lines(node, arm=arm)) for node in nodes if node not in chips),
        *((windows(node.u32s("reg"), 3), lines(node, arm=arm)) for node in ports),
    }
    wide = tree.node("/cpus").u32s("#address-cells") == (2,)
    processors = [node.u64s("reg") if wide else node.u32s("reg") for node in tree.node("/cpus").children]
    inner = [child for node in chips for child in node.children]
    numbers = [number for node in (*chips, *inner) for number in node.u64s("reg")]
    # Of an APIC the address alone: ACPI knows no size of it.
    return Found(
        frozenset(devices), tuple(ids[0] for ids in processors), tuple(numbers if arm else numbers[::2])
    )


def windows(numbers, cells):
    """Return ranges of (base, size) or, of a bus with ports, (1, base, size)."""
    assert cells == 2 or set(numbers[::3]) == {1}
    pairs = zip(numbers[cells - 2 :: cells], numbers[cells - 1 :: cells], strict=True)
    return tuple(AddressRange(MMIO if cells == 2 else PIO, *pair) for pair in pairs)


def lines(node, *, arm):
    """Return interrupts of a node."""
    cells = node.u32s("interrupts") if "interrupts" in node.properties else ()
    if not arm:
        pairs = zip(cells[::2], cells[1::2], strict=True)
        return tuple(InterruptSpec(pin, *APIC_SENSE[sense]) for pin, sense in pairs)
    triples = zip(cells[::3], cells[1::3], cells[2::3], strict=True)
    return tuple(InterruptSpec(n + (16 if ppi else 32), *GIC_SENSE[flags]) for ppi, n, flags in triples)


def in_the_tables(platform):
    """Read ACPI tables as the specification says."""
    blob = build_tables(platform, ADDRESS).blob
    found = parse_tables(lambda at, size: blob[at - ADDRESS :][:size], ADDRESS)
    (system,) = aml.parse(found.aml())
    templates = [
        child.children[0].value
        for device in system.children
        for child in device.children
        if child.name == "_CRS"
    ]
    madt = found.madt()
    processors = [entry for entry in madt.entries if isinstance(entry, Gicc | LocalApic) and entry.online]
    ids = tuple(entry.mpidr if isinstance(entry, Gicc) else entry.apic_id for entry in processors)
    return Found(frozenset(map(resources, templates)), ids, chips_of(madt))


def resources(template):
    """Return ranges and interrupts of a _CRS (ACPI 6.5 §6.4)."""
    ranges, interrupts = [], []
    for data in aml.split_resources(template):
        match data[0]:
            case 0x47:  # IO
                _, _, base, _, _, size = struct.unpack("<BBHHBB", data)
                ranges.append(AddressRange(PIO, base, size))
            case 0x86:  # Memory32Fixed
                _, _, _, base, size = struct.unpack("<BHBII", data)
                ranges.append(AddressRange(MMIO, base, size))
            case 0x87 | 0x8A:  # DWordIO, QWordMemory
                letter = "I" if data[0] == 0x87 else "Q"
                _, _, kind, *_, base, last, _, size = struct.unpack(f"<BHBBB5{letter}", data)
                assert last == base + size - 1
                ranges.append(AddressRange(PIO if kind == 1 else MMIO, base, size))
            case tag:
                assert tag == 0x89  # Interrupt
                flags, count, gsi = struct.unpack("<BBI", data[3:])
                assert count == 1
                interrupts.append(InterruptSpec(gsi, EDGE if flags & 2 else LEVEL, bool(flags & 4)))
    return tuple(ranges), tuple(interrupts)


def chips_of(madt):
    """Return base and size of the GIC's parts, or the addresses of the APICs."""
    numbers = []
    for entry in madt.entries:
        match entry:
            case Gicd(base=base):
                numbers += [base, 0x1_0000]
            case GicRedistributor(base=base, size=size):
                numbers += [base, size]
            case GicIts(base=base):
                numbers += [base, 0x2_0000]
            case IoApic(address=address):
                numbers += [madt.local_apic, address]
            case _:
                pass
    return tuple(numbers)


@st.composite
def platforms(draw):
    """Draw a machine whose devices stand on one bus each; some are for one of the two emitters, or none."""
    arch = draw(st.sampled_from(["aarch64", "x86_64"]))
    arm = arch == "aarch64"
    gsis = draw(st.lists(st.integers(16, 1019) if arm else st.integers(0, 23), unique=True, max_size=8))
    devices = []
    for number in range(draw(st.integers(0, 6))):
        port = not arm and draw(st.booleans())
        base = 0x400 * (number + 1) if port else 0xA00_0000 + (number << 16)
        base += 0 if port else draw(st.sampled_from([0, 1 << 40, 0xF000_0000]))
        sizes = draw(st.lists(st.integers(1, 0x200 if port else 0x8000), min_size=1, max_size=2))
        ranges = [AddressRange(PIO if port else MMIO, base, sizes[0])]
        ranges += [AddressRange(ranges[0].space, ranges[0].last + 1, size) for size in sizes[1:]]
        own = [gsis.pop() for _ in range(draw(st.integers(0, min(2, len(gsis)))))]
        specs = [InterruptSpec(gsi, draw(st.sampled_from(Trigger)), draw(st.booleans())) for gsi in own]
        hid = draw(st.sampled_from(["LNRO0005", "PNP0501", None]))
        compatible = draw(st.sampled_from([("virtio,mmio",), ("ns16550a", "x,y"), ()]))
        devices.append(DeviceNode(f"d{number}", "dev", ranges, specs, hid, compatible, number))
    ids = draw(st.lists(st.integers(0, 0xFF_FFFF if arm else 1000), unique=True, min_size=1, max_size=4))
    cpus = [CpuNode(n, hw_id, online=not n or draw(st.booleans())) for n, hw_id in enumerate(ids)]
    return Platform(arch, cpus, (MemoryNode(0x4000_0000, 1 << 28),), devices, **chips(arm=arm))


def chips(*, arm):
    """Return the interrupt controllers of an architecture."""
    if not arm:
        return {"gic": None, "ioapics": (IoApicNode(0, 0xFEC0_0000),)}
    parts = ((0x800_0000, 0x1_0000), (0x80A_0000, 0xF6_0000), (0x808_0000, 0x2_0000))
    return {"gic": GicNode(*(AddressRange(MMIO, *part) for part in parts))}


FAR = DeviceNode("far", "dev", (AddressRange(MMIO, 0xFFFF_F000, 0x1000),), (), "LNRO0005", ("virtio,mmio",))
MACHINE = Platform("aarch64", (CpuNode(0, 0),), (MemoryNode(0, 4096),), (FAR,), **chips(arm=True))


@settings(max_examples=60)
@given(platforms())
@example(MACHINE)  # ends where 32 bits end
def test_tree_and_tables_describe_one_machine(platform):
    """What both show has the same ranges and interrupts in both; processors and chips are the same."""
    tree, tables = in_the_tree(platform), in_the_tables(platform)
    places = {node.id: (node.ranges, node.interrupts) for node in platform.devices}
    no_hid = {node.id for node in platform.devices if node.hid is None}
    no_compatible = {node.id for node in platform.devices if not node.compatible}
    assert tree.devices == {place for name, place in places.items() if name not in no_compatible}
    assert tables.devices == {place for name, place in places.items() if name not in no_hid}
    left_out = {places[name] for name in no_hid | no_compatible}
    assert tree.devices - left_out == tables.devices - left_out
    assert tree.processors == tables.processors == tuple(cpu.hw_id for cpu in platform.cpus if cpu.online)
    assert tree.chips == tables.chips


BOARDS = {
    "aarch64": (
        (Pl011.describe(), Pl031.describe(), Pl061.describe()),
        {"rtc"},  # ACPI has no PL031: a guest asks the firmware for the time
        set(),
    ),
    "x86_64": (
        (
            *(Serial16550.describe(), CmosRtc.describe(gsi=8), Pvpanic.describe()),
            *(I8042.describe(), AcpiRegisters.describe(), BootTimer.describe()),
        ),
        # Found by the FADT, and where it always was; our own.
        {"i8042", "acpi", "boot-timer"},
        {"i8042", "acpi", "boot-timer"},
    ),
}


@pytest.mark.parametrize("arch", BOARDS)
def test_the_devices_of_the_house(arch):
    """Each is in both, but for those that one of the two has no name for."""
    devices, not_in_tables, not_in_tree = BOARDS[arch]
    platform = attrs.evolve(MACHINE, arch=arch, devices=devices, **chips(arm=arch == "aarch64"))
    for found, expected in (
        (in_the_tables(platform), not_in_tables),
        (in_the_tree(platform), not_in_tree),
    ):
        places = {node.id: (node.ranges, node.interrupts) for node in devices}
        assert {name for name, place in places.items() if place not in found.devices} == expected
        assert found.devices <= {*places.values()}
