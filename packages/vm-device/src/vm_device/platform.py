"""The one description of the machine that ACPI tables and device trees are emitted from.

Value objects only: they are validated when built, never change, and hold no reference to a live device.
"""

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from vm_device._errors import PlatformError, RangeOverlapError
from vm_device._value import Value

__all__ = (
    "AddressRange",
    "AddressSpace",
    "CpuNode",
    "DeviceNode",
    "GicNode",
    "InterruptSpec",
    "IoApicNode",
    "MemoryNode",
    "Platform",
    "RegisterSpec",
    "Trigger",
)

PropertyValue = int | str | bytes


class AddressSpace(enum.Enum):
    """Which of the two guest-physical buses an address belongs to."""

    PIO = "pio"
    MMIO = "mmio"

    @property
    def limit(self) -> int:
        """First address beyond the space: 2^16 ports, 2^64 bytes of MMIO."""
        return 1 << 16 if self is AddressSpace.PIO else 1 << 64


class Trigger(enum.Enum):
    """How an interrupt line signals."""

    EDGE = "edge"
    LEVEL = "level"


def _fail_unless(ok: bool, field: str, value: object, reason: str) -> None:
    if not ok:
        raise PlatformError(field, value, reason)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_number(field: str, value: int, last: int) -> None:
    _fail_unless(_is_int(value) and 0 <= value <= last, field, value, f"must be 0..{last:#x}")


@attrs.frozen(order=True, repr=False)
class AddressRange(Value):
    """A non-empty run of addresses in one space.

    Args:
        space: the bus.
        base: first address; 0 .. 0xFFFF for PIO, 0 .. 2^64-1 for MMIO.
        size: length in bytes, at least 1; base + size must not pass the end of the space.

    Raises:
        PlatformError: base or size does not fit the space.
    """

    space: AddressSpace = attrs.field(order=lambda space: space.value)
    base: int
    size: int

    def __attrs_post_init__(self) -> None:
        limit = self.space.limit
        _fail_unless(
            _is_int(self.base) and 0 <= self.base < limit,
            "base",
            self.base,
            f"outside {self.space.name} 0..{limit - 1:#x}",
        )
        fits = _is_int(self.size) and 1 <= self.size <= limit - self.base
        _fail_unless(fits, "size", self.size, f"must be 1..{limit - self.base:#x} from base {self.base:#x}")

    @property
    def last(self) -> int:
        """Last address, inclusive."""
        return self.base + self.size - 1

    def contains(self, address: int, size: int = 1) -> bool:
        """Tell whether `size` bytes (>= 1) at `address` lie wholly inside."""
        return self.base <= address and address + size - 1 <= self.last

    def overlaps(self, other: "AddressRange") -> bool:
        """Tell whether the two ranges share an address of the same space."""
        return self.space is other.space and self.base <= other.last and other.base <= self.last

    def __str__(self) -> str:
        return f"{self.space.value} {self.base:#x}..{self.last:#x}"


def check_disjoint(ranges: Iterable[AddressRange]) -> None:
    """Refuse ranges that share an address.

    Raises:
        RangeOverlapError: naming the first such pair in address order.
    """
    previous: AddressRange | None = None
    for current in sorted(ranges):
        if previous is not None and previous.overlaps(current):
            raise RangeOverlapError(current, previous)
        previous = current


@attrs.frozen(eq=False, repr=False)
class InterruptSpec(Value):
    """One wired interrupt of a device.

    Args:
        gsi: global system interrupt, 0 .. 2^32-1.
        trigger: edge or level.
        active_low: polarity; virtio-mmio and ISA lines are active high.
    """

    gsi: int
    trigger: Trigger = Trigger.EDGE
    active_low: bool = False

    def __attrs_post_init__(self) -> None:
        _check_number("gsi", self.gsi, 0xFFFF_FFFF)


# Typed converters: mypy cannot see through `converter=tuple`.
def _ranges(items: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
    return tuple(items)


def _lines(items: Iterable[InterruptSpec]) -> tuple[InterruptSpec, ...]:
    return tuple(items)


def _strings(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(items)


def _freeze(properties: Mapping[str, PropertyValue]) -> Mapping[str, PropertyValue]:
    return MappingProxyType(dict(properties))


@attrs.frozen(eq=False, repr=False)
class DeviceNode(Value):
    """A device as the guest is to find it.

    Args:
        id: unique, stable name chosen by the user or the VMM ("disk0").
        name: what it is, in the emitter's namespace ("serial", "virtio_mmio").
        ranges: address ranges it answers, in the order the emitter lists them.
        interrupts: wired interrupts, possibly none.
        hid: ACPI hardware id ("PNP0501"); None leaves the device out of ACPI.
        compatible: device-tree strings, most specific first; empty leaves it out of the FDT.
        uid: ACPI _UID, unique among nodes of the same hid, 0 .. 2^32-1.
        properties: further integers, strings or bytes for the emitters.

    Raises:
        PlatformError: empty id or name, or uid out of range.
        RangeOverlapError: two of its own ranges overlap.
    """

    id: str
    name: str
    ranges: tuple[AddressRange, ...] = attrs.field(converter=_ranges)
    interrupts: tuple[InterruptSpec, ...] = attrs.field(default=(), converter=_lines)
    hid: str | None = None
    compatible: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    uid: int = 0
    properties: Mapping[str, PropertyValue] = attrs.field(factory=dict, converter=_freeze, hash=False)

    def __attrs_post_init__(self) -> None:
        _fail_unless(bool(self.id), "id", self.id, "a device needs a non-empty id")
        _fail_unless(bool(self.name), "name", self.name, "a device needs a non-empty name")
        _check_number("uid", self.uid, 0xFFFF_FFFF)
        check_disjoint(self.ranges)


@attrs.frozen(eq=False, repr=False)
class CpuNode(Value):
    """A virtual CPU.

    Args:
        index: 0-based number inside the VMM.
        hw_id: APIC id (x86), MPIDR affinity (arm64), hart id (riscv64).
        online: whether it takes part in the boot; False reserves it for hotplug.
        place: socket, die, core and thread, each counted from 0 within the one before; None: not told.

    Raises:
        PlatformError: one of these is out of range.
    """

    index: int
    hw_id: int
    online: bool = True
    place: tuple[int, int, int, int] | None = None

    def __attrs_post_init__(self) -> None:
        _fail_unless(_is_int(self.index) and self.index >= 0, "cpu.index", self.index, "must be >= 0")
        _check_number("cpu.hw_id", self.hw_id, (1 << 64) - 1)
        _fail_unless(self.place is None or len(self.place) == 4, "cpu.place", self.place, "must be 4 numbers")
        for number in self.place or ():
            _check_number("cpu.place", number, 0xFFFF)


@attrs.frozen(eq=False, repr=False)
class MemoryNode(Value):
    """A range of RAM: base and size in bytes, inside the 64-bit physical space."""

    base: int
    size: int

    def __attrs_post_init__(self) -> None:
        AddressRange(AddressSpace.MMIO, self.base, self.size)

    @property
    def range(self) -> AddressRange:
        """The same as an MMIO-space range."""
        return AddressRange(AddressSpace.MMIO, self.base, self.size)


@attrs.frozen(eq=False, repr=False)
class IoApicNode(Value):
    """An I/O APIC: its `id` (0 .. 255), MMIO `address` (32 bit) and first GSI, `gsi_base`."""

    id: int
    address: int
    gsi_base: int = 0

    def __attrs_post_init__(self) -> None:
        _check_number("ioapic.id", self.id, 0xFF)
        _check_number("ioapic.address", self.address, 0xFFFF_FFFF)
        _check_number("ioapic.gsi_base", self.gsi_base, 0xFFFF_FFFF)


@attrs.frozen(eq=False, repr=False)
class GicNode(Value):
    """The GICv3 of an Arm machine.

    Args:
        distributor: 64 KiB of registers.
        redistributors: 128 KiB for each processor, one after the other.
        its: 128 KiB of the interrupt translation service, if there is one.

    Raises:
        PlatformError: a range is not in the MMIO space.
        RangeOverlapError: two of them overlap.
    """

    distributor: AddressRange
    redistributors: AddressRange
    its: AddressRange | None = None

    def __attrs_post_init__(self) -> None:
        for where in self.ranges:
            _fail_unless(where.space is AddressSpace.MMIO, "gic", str(where), "must be in the MMIO space")
        check_disjoint(self.ranges)

    @property
    def ranges(self) -> tuple[AddressRange, ...]:
        """All its ranges."""
        both = (self.distributor, self.redistributors)
        return both if self.its is None else (*both, self.its)


@attrs.frozen(eq=False, repr=False)
class RegisterSpec(Value):
    """A register at `range` and the `value` (0 .. 255) that makes it act, as the FADT's RESET_REG has."""

    range: AddressRange
    value: int = 0

    def __attrs_post_init__(self) -> None:
        _check_number("register.value", self.value, 0xFF)


def _cpus(items: Iterable[CpuNode]) -> tuple[CpuNode, ...]:
    return tuple(items)


def _memory(items: Iterable[MemoryNode]) -> tuple[MemoryNode, ...]:
    return tuple(items)


def _devices(items: Iterable[DeviceNode]) -> tuple[DeviceNode, ...]:
    return tuple(items)


def _ioapics(items: Iterable[IoApicNode]) -> tuple[IoApicNode, ...]:
    return tuple(items)


def _check_unique(field: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        _fail_unless(value not in seen, field, value, "appears twice")
        seen.add(value)


def _check_edge_lines(devices: Iterable[DeviceNode]) -> None:
    """An edge line cannot be shared: one device's edge would hide the other's."""
    owners: dict[int, tuple[str, InterruptSpec]] = {}
    for node in devices:
        for line in node.interrupts:
            other = owners.setdefault(line.gsi, (node.id, line))
            shared = other[1] is not line
            clash = shared and (
                Trigger.EDGE in (line.trigger, other[1].trigger) or line.active_low != other[1].active_low
            )
            _fail_unless(
                not clash,
                f"{node.id}.gsi",
                line.gsi,
                f"is taken by {other[0]!r}; only level lines of one polarity can be shared",
            )


@attrs.frozen(eq=False, repr=False)
class Platform(Value):
    """The whole machine.

    Args:
        arch: "x86_64", "aarch64" or "riscv64".
        cpus: at least one, unique index and hw_id; all or none have a place, each another.
        memory: RAM ranges, disjoint.
        devices: unique ids, disjoint ranges, edge GSIs not shared.
        ioapics: x86 only.
        gic: Arm only. An Arm machine has the generic timer on its usual interrupts, and PSCI by HVC.
        lapic_address: x86 local APIC MMIO base.
        reset: ACPI reset register and its value, if any.
        sleep_control: hardware-reduced ACPI sleep control register.
        sleep_status: hardware-reduced ACPI sleep status register.
        s5_value: SLP_TYP of soft-off for the _S5 package, 0 .. 7.

    Raises:
        PlatformError: a field contradicts the rules above.
        RangeOverlapError: two devices, or a device and RAM, share an address.
    """

    arch: str
    cpus: tuple[CpuNode, ...] = attrs.field(converter=_cpus)
    memory: tuple[MemoryNode, ...] = attrs.field(converter=_memory)
    devices: tuple[DeviceNode, ...] = attrs.field(converter=_devices)
    ioapics: tuple[IoApicNode, ...] = attrs.field(default=(), converter=_ioapics)
    lapic_address: int = 0xFEE0_0000
    reset: RegisterSpec | None = None
    sleep_control: AddressRange | None = None
    sleep_status: AddressRange | None = None
    s5_value: int = 5
    gic: GicNode | None = None

    def __attrs_post_init__(self) -> None:
        _fail_unless(bool(self.arch), "arch", self.arch, "needs an architecture name")
        _fail_unless(bool(self.cpus), "cpus", self.cpus, "a machine needs at least one CPU")
        _check_unique("cpu.index", (cpu.index for cpu in self.cpus))
        _check_unique("cpu.hw_id", (cpu.hw_id for cpu in self.cpus))
        places = [cpu.place for cpu in self.cpus if cpu.place is not None]
        _fail_unless(len(places) in {0, len(self.cpus)}, "cpu.place", None, "is told of some processors only")
        _check_unique("cpu.place", places)
        _check_unique("device.id", (node.id for node in self.devices))
        _check_unique(
            "device.(hid, uid)", ((node.hid, node.uid) for node in self.devices if node.hid is not None)
        )
        _check_unique("ioapic.id", (ioapic.id for ioapic in self.ioapics))
        _fail_unless(
            _is_int(self.s5_value) and 0 <= self.s5_value <= 7,
            "s5_value",
            self.s5_value,
            "SLP_TYP is 3 bits, 0..7",
        )
        ranges = [r for node in self.devices for r in node.ranges] + [m.range for m in self.memory]
        check_disjoint(ranges + list(self.gic.ranges if self.gic else ()))
        _check_edge_lines(self.devices)

    def device(self, id: str) -> DeviceNode:  # noqa: A002 - the field is called id
        """Return the node with this id.

        Raises:
            PlatformError: there is none.
        """
        for node in self.devices:
            if node.id == id:
                return node
        raise PlatformError(
            "device.id", id, f"unknown; known ids: {', '.join(n.id for n in self.devices) or 'none'}"
        )
