"""The platform description."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import PlatformError, RangeOverlapError
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
    RegisterSpec,
    Trigger,
)

PIO, MMIO = AddressSpace.PIO, AddressSpace.MMIO
RANGES = st.builds(lambda base, size: AddressRange(PIO, base, size), st.integers(0, 50), st.integers(1, 20))


@given(RANGES, RANGES)
def test_ranges_against_sets(a, b):
    """Overlaps and contains agree with sets of addresses; other spaces never overlap."""
    left, right = (set(range(r.base, r.last + 1)) for r in (a, b))
    assert a.overlaps(b) == b.overlaps(a) == bool(left & right)
    assert a.contains(b.base, b.size) == (right <= left)
    assert not a.overlaps(AddressRange(MMIO, a.base, a.size))


@pytest.mark.parametrize(
    ("space", "base", "size"),
    [(PIO, 0x10000, 1), (PIO, 0xFFFF, 2), (PIO, 0, 0), (MMIO, 1 << 64, 1), (MMIO, -1, 1), (MMIO, 1, 1 << 64)],
)
def test_impossible_ranges(space, base, size):
    """A range is non-empty and inside its space."""
    with pytest.raises(PlatformError):
        AddressRange(space, base, size)


def machine(*devices, **changes):
    """A small valid machine."""
    fields = {
        "arch": "x86_64",
        "cpus": [CpuNode(0, 0), CpuNode(1, 1)],
        "memory": [MemoryNode(0, 0x1000)],
        "devices": devices,
        "ioapics": [IoApicNode(0, 0xFEC0_0000)],
        "reset": RegisterSpec(AddressRange(PIO, 0x602, 1), 1),
    }
    return Platform(**{**fields, **changes})


def node(id_, base, gsi, trigger=Trigger.LEVEL, **fields):
    """A device with one page and one line."""
    return DeviceNode(id_, "x", [AddressRange(MMIO, base, 0x1000)], [InterruptSpec(gsi, trigger)], **fields)


def test_a_valid_machine():
    """Sequences become tuples, nodes are found by id, level lines can be shared, properties cannot change."""
    platform = machine(node("a", 0x10000, 5, properties={"k": 1}), node("b", 0x20000, 5))
    assert platform.cpus == (CpuNode(0, 0), CpuNode(1, 1))
    assert platform.device("b").interrupts == (InterruptSpec(5, Trigger.LEVEL),)
    assert hash(platform) == hash(attrs.evolve(platform))
    with pytest.raises(TypeError):
        platform.device("a").properties["k"] = 2
    with pytest.raises(PlatformError, match="unknown; known ids: a, b"):
        platform.device("c")


@pytest.mark.parametrize(
    ("devices", "changes", "error", "message"),
    [
        ((node("a", 0x10000, 5), node("a", 0x20000, 6)), {}, PlatformError, "device.id='a': appears twice"),
        ((node("a", 0x10000, 5), node("b", 0x10FFF, 6)), {}, RangeOverlapError, r"mmio 0x10fff\.\."),
        ((node("a", 0xFFF, 5),), {}, RangeOverlapError, r"overlaps mmio 0x0\.\.0xfff"),
        (
            (node("a", 0x10000, 5, Trigger.EDGE), node("b", 0x20000, 5)),
            {},
            PlatformError,
            "b.gsi=0x5: is taken by 'a'",
        ),
        (
            (node("a", 0x10000, 5, hid="H"), node("b", 0x20000, 6, hid="H")),
            {},
            PlatformError,
            "appears twice",
        ),
        ((), {"cpus": []}, PlatformError, "at least one CPU"),
        ((), {"cpus": [CpuNode(0, 0), CpuNode(1, 0)]}, PlatformError, "cpu.hw_id=0x0: appears twice"),
        ((), {"cpus": [CpuNode(0, 0, place=(0, 0, 0, 0)), CpuNode(1, 1)]}, PlatformError, "of some"),
        ((), {"cpus": [CpuNode(n, n, place=(0, 1, 0, 0)) for n in (0, 1)]}, PlatformError, "cpu.place"),
        ((), {"s5_value": 8}, PlatformError, "s5_value=0x8"),
        ((), {"arch": ""}, PlatformError, "arch"),
    ],
)
def test_contradictions_are_refused(devices, changes, error, message):
    """Each rule of the description is checked when it is built."""
    with pytest.raises(error, match=message):
        machine(*devices, **changes)


@pytest.mark.parametrize(
    "build",
    [
        lambda: InterruptSpec(-1),
        lambda: CpuNode(-1, 0),
        lambda: CpuNode(0, 1 << 64),
        lambda: CpuNode(0, 0, place=(0, 0, -1, 0)),
        lambda: CpuNode(0, 0, place=(0, 0, 0, 1 << 16)),
        lambda: CpuNode(0, 0, place=(0, 0, 0)),
        lambda: IoApicNode(256, 0),
        lambda: IoApicNode(0, 1 << 32),
        lambda: RegisterSpec(AddressRange(PIO, 0, 1), 256),
        lambda: MemoryNode(0, 0),
        lambda: DeviceNode("", "x", ()),
        lambda: DeviceNode("x", "", ()),
        lambda: DeviceNode("x", "x", (), uid=-1),
    ],
)
def test_field_limits(build):
    """Every numeric field has its limit."""
    with pytest.raises(PlatformError):
        build()


def mmio(base, size):
    """A range of the MMIO space."""
    return AddressRange(MMIO, base, size)


def test_gic():
    """Its ranges are MMIO, apart from each other and from everything else of the machine."""
    gic = GicNode(mmio(0x800_0000, 0x1_0000), mmio(0x80A_0000, 0x2_0000))
    assert gic.ranges == (mmio(0x800_0000, 0x1_0000), mmio(0x80A_0000, 0x2_0000))
    with pytest.raises(PlatformError, match="must be in the MMIO space"):
        GicNode(AddressRange(AddressSpace.PIO, 0, 16), mmio(0x80A_0000, 0x2_0000))
    with pytest.raises(RangeOverlapError):
        GicNode(mmio(0x800_0000, 0x1_0000), mmio(0x800_0000, 0x2_0000))
    with pytest.raises(RangeOverlapError):
        Platform("aarch64", (CpuNode(0, 0),), (MemoryNode(0x80B_0000, 0x1000),), (), gic=gic)
