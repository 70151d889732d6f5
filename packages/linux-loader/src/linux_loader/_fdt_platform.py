"""The device tree of a machine: the other emitter of the platform description, beside acpi_tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    GicNode,
    InterruptSpec,
    Platform,
    Trigger,
)

from linux_loader._errors import FdtBuildError
from linux_loader._fdt_tree import Fdt, FdtNode, strings, u32s, u64s

_GIC, _ITS, _CLOCK, _IOAPIC, _CPUS = 1, 2, 3, 0x10, 0x1000  # phandles; I/O APICs and processors count on
_FIRST_SPI, _FIRST_PPI = 32, 16
_RISING, _FALLING, _HIGH, _LOW = 1, 2, 4, 8
_TIMER_PPIS = (13, 14, 11, 10)  # secure EL1, EL1, virtual, EL2
_CLOCK_HZ = 24_000_000
_LEVELS = ("socket", "cluster", "core", "thread")
_PRIMECELL = "arm,primecell"
_GENERATION_ID, _GENERATION_ID_SIZE = "microsoft,vmgenid", 16
_LAST_GENERATION_ID = (1 << 64) - _GENERATION_ID_SIZE
_APIC_SIZE = 0x1000


def platform_tree(platform: Platform) -> Fdt:
    """Describe a machine as a device tree.

    Every device with a ``compatible`` and a range is in it; its ``properties`` become properties of its
    node (an int of 32 bits or, beyond, of 64; a str with its NUL). A generation ID has no range but an
    ``address``; where that is RAM it is reserved. ``/chosen`` is left to ``load_image``.

    Args:
        platform: The machine, of ``arch`` "aarch64" (GICv3, PSCI, generic timer) or "x86_64".

    Returns:
        The tree.

    Raises:
        FdtBuildError: Another architecture, no interrupt controller, an interrupt that it has not, or a
            generation ID without one or outside of 64 bits.

    Source: Devicetree Specification 0.4; bindings arm,gic-v3, arm,psci, arm,arch_timer, virtio,mmio,
        microsoft,vmgenid, cpu-map and ce4100 (x86) of Linux.
    """
    if platform.arch not in _MACHINES:
        raise FdtBuildError("arch", repr(platform.arch), f"one of {', '.join(sorted(_MACHINES))}")
    return _MACHINES[platform.arch](platform)


def _aarch64(platform: Platform) -> Fdt:
    gic = platform.gic
    if gic is None:
        raise FdtBuildError("gic", "None", "an AArch64 machine needs one")
    devices = [_mmio_device(node, _gic_cells) for node in platform.devices if _is_on(node, AddressSpace.MMIO)]
    psci = {"compatible": strings("arm,psci-1.0", "arm,psci-0.2"), "method": strings("hvc")}
    timer = {
        "compatible": strings("arm,armv8-timer"),
        "interrupts": u32s(*(cell for ppi in _TIMER_PPIS for cell in (1, ppi, _LOW))),
        "always-on": b"",
    }
    clock = {
        "compatible": strings("fixed-clock"), "#clock-cells": u32s(0), "clock-frequency": u32s(_CLOCK_HZ),
        "clock-output-names": strings("clk24mhz"), "phandle": u32s(_CLOCK),
    }  # fmt: skip
    own = [FdtNode("psci", psci), FdtNode("timer", timer), FdtNode("apb-pclk", clock), _gic(gic)]
    cpu = {"compatible": strings("arm,armv8"), "enable-method": strings("psci")}
    return _machine(platform, _GIC, cpu, [*own, *devices, *_generation_id(platform, _gic_cells)])


def _gic(gic: GicNode) -> FdtNode:
    properties = {
        "compatible": strings("arm,gic-v3"), "#interrupt-cells": u32s(3), "interrupt-controller": b"",
        "#address-cells": u32s(2), "#size-cells": u32s(2), "ranges": b"",
        "reg": _reg(gic.distributor, gic.redistributors), "phandle": u32s(_GIC),
    }  # fmt: skip
    its = []
    if gic.its is not None:
        inner = {
            "compatible": strings("arm,gic-v3-its"), "msi-controller": b"", "#msi-cells": u32s(1),
            "reg": _reg(gic.its), "phandle": u32s(_ITS),
        }  # fmt: skip
        its = [FdtNode(f"msi-controller@{gic.its.base:x}", inner)]
    return FdtNode(f"interrupt-controller@{gic.distributor.base:x}", properties, its)


def _gic_cells(node: DeviceNode, line: InterruptSpec) -> tuple[int, int, int]:
    if line.gsi < _FIRST_PPI:
        raise FdtBuildError(
            f"interrupt of {node.id}", str(line.gsi), "a device has an SPI (32..) or a PPI (16..)"
        )
    if line.gsi < _FIRST_SPI:
        return 1, line.gsi - _FIRST_PPI, _flags(line)
    return 0, line.gsi - _FIRST_SPI, _flags(line)


def _flags(line: InterruptSpec) -> int:
    if line.trigger is Trigger.EDGE:
        return _FALLING if line.active_low else _RISING
    return _LOW if line.active_low else _HIGH


def _x86_64(platform: Platform) -> Fdt:
    if not platform.ioapics:
        raise FdtBuildError("ioapics", "()", "an x86 machine needs one")

    def cells(node: DeviceNode, line: InterruptSpec) -> tuple[int, int]:
        """Return pin and sense of a line."""
        chips = [chip for chip in platform.ioapics if chip.gsi_base <= line.gsi]
        if not chips or max(chips, key=lambda chip: chip.gsi_base) != platform.ioapics[0]:
            raise FdtBuildError(f"interrupt of {node.id}", str(line.gsi), "no pin of the first I/O APIC")
        return line.gsi - platform.ioapics[0].gsi_base, _X86_SENSE[_flags(line)]

    own = [
        _x86_chip("lapic", platform.lapic_address, {"compatible": strings("intel,ce4100-lapic")}),
        *(
            _x86_chip(
                "ioapic",
                chip.address,
                {
                    "compatible": strings("intel,ce4100-ioapic"),
                    "interrupt-controller": b"",
                    "#interrupt-cells": u32s(2),
                    "#address-cells": u32s(0),
                    "phandle": u32s(_IOAPIC + at),
                },
            )
            for at, chip in enumerate(platform.ioapics)
        ),
    ]
    devices = [_mmio_device(node, cells) for node in platform.devices if _is_on(node, AddressSpace.MMIO)]
    ports = [_port_device(node, cells) for node in platform.devices if _is_on(node, AddressSpace.PIO)]
    # An address is (1: I/O, port); all ports are the processor's own.
    isa = {
        "compatible": strings("isa"), "device_type": strings("isa"), "#address-cells": u32s(2),
        "#size-cells": u32s(1), "ranges": u32s(1, 0, 0, 0, 1 << 16),
    }  # fmt: skip
    # A bus of its own: RAM has the same unit address.
    bus = {
        "compatible": strings("simple-bus"), "#address-cells": u32s(2), "#size-cells": u32s(2), "ranges": b"",
    }  # fmt: skip
    own.append(FdtNode("bus", bus, [FdtNode("isa@0", isa, ports)]))
    return _machine(platform, _IOAPIC, {}, [*own, *devices, *_generation_id(platform, cells)])


# Positions in of_ioapic_type of arch/x86/kernel/devicetree.c, which is what the second cell is.
_X86_SENSE = {_FALLING: 0, _HIGH: 1, _LOW: 2, _RISING: 3}


def _x86_chip(name: str, base: int, properties: dict[str, bytes]) -> FdtNode:
    where = AddressRange(AddressSpace.MMIO, base, _APIC_SIZE)
    return FdtNode(f"{name}@{base:x}", {**properties, "reg": _reg(where)})


def _machine(platform: Platform, controller: int, cpu: dict[str, bytes], content: list[FdtNode]) -> Fdt:
    wide = any(node.hw_id >= 1 << 32 for node in platform.cpus)
    cells = {"#address-cells": u32s(2 if wide else 1), "#size-cells": u32s(0)}
    online = [node for node in platform.cpus if node.online]
    nodes = [_cpu(node, cpu, wide=wide) for node in online]
    if online and online[0].place is not None:
        nodes.append(_cpu_map(online))
    cpus = FdtNode("cpus", cells, nodes)
    memory = [
        FdtNode(f"memory@{node.base:x}", {"device_type": strings("memory"), "reg": _reg(node.range)})
        for node in platform.memory
    ]
    root = {
        "compatible": strings("linux,dummy-virt"), "model": strings("linux,dummy-virt"),
        "#address-cells": u32s(2), "#size-cells": u32s(2), "interrupt-parent": u32s(controller),
    }  # fmt: skip
    boot_cpu = online[0].hw_id & 0xFFFF_FFFF if online else 0
    return Fdt(FdtNode("", root, [cpus, *memory, *content]), boot_cpu=boot_cpu)


def _cpu(node: CpuNode, properties: dict[str, bytes], *, wide: bool) -> FdtNode:
    reg = u64s(node.hw_id) if wide else u32s(node.hw_id)
    named = {} if node.place is None else {"phandle": u32s(_CPUS + node.index)}
    return FdtNode(f"cpu@{node.hw_id:x}", {"device_type": strings("cpu"), **properties, "reg": reg, **named})


def _cpu_map(cpus: Sequence[CpuNode]) -> FdtNode:
    """Group processors as the binding of cpu-map wants it: counted without holes; dies are its clusters."""
    depth = 4 if any(cpu.place[3] for cpu in cpus if cpu.place) else 3
    return FdtNode("cpu-map", {}, _groups(cpus, 0, depth))


def _groups(cpus: Sequence[CpuNode], level: int, depth: int) -> list[FdtNode]:
    if level == depth:
        return []
    groups: dict[int, list[CpuNode]] = {}
    for cpu in cpus:
        if cpu.place is not None:
            groups.setdefault(cpu.place[level], []).append(cpu)
    own = level + 1 == depth
    return [
        FdtNode(
            f"{_LEVELS[level]}{number}",
            {"cpu": u32s(_CPUS + inside[0].index)} if own else {},
            _groups(inside, level + 1, depth),
        )
        for number, (_, inside) in enumerate(sorted(groups.items()))
    ]


def _is_on(node: DeviceNode, space: AddressSpace) -> bool:
    """Whether a device stands on the bus of that space: one that has both is found by its MMIO ranges."""
    spaces = {window.space for window in node.ranges}
    home = AddressSpace.MMIO if AddressSpace.MMIO in spaces else AddressSpace.PIO
    return bool(node.compatible and spaces) and home is space


_Cells = Callable[[DeviceNode, InterruptSpec], tuple[int, ...]]


def _mmio_device(node: DeviceNode, cells: _Cells) -> FdtNode:
    windows = [window for window in node.ranges if window.space is AddressSpace.MMIO]
    properties = {**_common(node, cells), "reg": _reg(*windows), "dma-coherent": b""}
    if _PRIMECELL in node.compatible:
        properties |= {"clocks": u32s(_CLOCK), "clock-names": strings("apb_pclk")}
    if "arm,pl011" in node.compatible:
        properties |= {"clocks": u32s(_CLOCK, _CLOCK), "clock-names": strings("uartclk", "apb_pclk")}
    return FdtNode(f"{node.name}@{windows[0].base:x}", properties)


def _generation_id(platform: Platform, cells: _Cells) -> list[FdtNode]:
    """Describe the identifier of the machine, and take the memory that it is in out of the guest's map."""
    found, kept = [], []
    for node in platform.devices:
        address = node.properties.get("address")
        if _GENERATION_ID not in node.compatible or not isinstance(address, int):
            continue
        if not node.interrupts:
            raise FdtBuildError(f"interrupt of {node.id}", "none", f"{_GENERATION_ID} needs one")
        if not 0 <= address <= _LAST_GENERATION_ID:
            raise FdtBuildError(f"address of {node.id}", hex(address), f"0..{_LAST_GENERATION_ID:#x}")
        where = AddressRange(AddressSpace.MMIO, address, _GENERATION_ID_SIZE)
        lines = [cell for line in node.interrupts for cell in cells(node, line)]
        properties = {"compatible": strings(*node.compatible), "reg": _reg(where), "interrupts": u32s(*lines)}
        found.append(FdtNode(f"{node.name}@{address:x}", properties))
        if any(memory.range.overlaps(where) for memory in platform.memory):
            kept.append(FdtNode(f"{node.name}@{address:x}", {"reg": _reg(where), "no-map": b""}))
    if kept:
        cells64 = {"#address-cells": u32s(2), "#size-cells": u32s(2), "ranges": b""}
        found.append(FdtNode("reserved-memory", cells64, kept))
    return found


def _port_device(node: DeviceNode, cells: _Cells) -> FdtNode:
    reg = b"".join(u32s(1, window.base, window.size) for window in node.ranges)
    return FdtNode(f"{node.name}@i{node.ranges[0].base:x}", {**_common(node, cells), "reg": reg})


def _common(node: DeviceNode, cells: _Cells) -> dict[str, bytes]:
    properties = {"compatible": strings(*node.compatible)}
    if node.interrupts:
        properties["interrupts"] = u32s(*(cell for line in node.interrupts for cell in cells(node, line)))
    for name, value in node.properties.items():
        if isinstance(value, int):
            properties[name] = u32s(value) if 0 <= value < 1 << 32 else u64s(value)
        else:
            properties[name] = strings(value) if isinstance(value, str) else value
    return properties


def _reg(*windows: AddressRange) -> bytes:
    return u64s(*(number for window in windows for number in (window.base, window.size)))


_MACHINES: dict[str, Callable[[Platform], Fdt]] = {"aarch64": _aarch64, "x86_64": _x86_64}
