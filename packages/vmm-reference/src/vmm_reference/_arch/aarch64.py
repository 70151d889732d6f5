"""AArch64 with a GICv3: PSCI ends and starts processors; PrimeCells, virtio-mmio, device tree or ACPI tables.

The map, a choice of this VMM: devices below 1 GiB, each of the board's own in a page of its own, RAM above.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import attrs
from linux_loader import GuestRange, LoadedImage, load_image
from linux_loader.fdt import Fdt, FdtNode, platform_tree
from vm_device import (
    AddressAllocator,
    BootTimer,
    BusDevice,
    IdAllocator,
    Interrupt,
    Pl011,
    Pl031,
    Pvpanic,
    SystemAllocator,
)
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    GicNode,
    MemoryNode,
    Platform,
)
from vm_hypervisor.arch import aarch64
from vm_hypervisor.kvm_arm64 import KvmArm64Hypervisor, KvmArm64Vcpu, KvmArm64Vm
from vmm_memory import GuestMemoryMmap
from vmm_memory.arch.aarch64 import RAM_START, ram_ranges

from vmm_reference._arch.base import Wiring
from vmm_reference._config import BootProtocol, Irqchip, Tables, VmConfig
from vmm_reference._config_cpus import HOST_TEMPLATE
from vmm_reference._errors import ConfigError
from vmm_reference._open import open_kernel

if TYPE_CHECKING:
    from linux_loader import KernelImage

__all__ = ("Board", "check_kernel", "check_options", "ram_ranges")

_ITS: Final = 0x0808_0000
# Redistributors of 254 processors fit before the window.
_GIC: Final = aarch64.Gic(distributor=0x0800_0000, its=_ITS, redistributors=0x0C00_0000)
_UART, _UART_GSI = 0x0900_0000, 33
_RTC, _RTC_GSI = 0x0901_0000, 34
_PVPANIC, _BOOT_TIMER = 0x0902_0000, 0x0903_0000
_WINDOW: Final = AddressRange(AddressSpace.MMIO, 0x1000_0000, 0x1000_0000)
_FIRST_FREE_GSI: Final = 48  # below are those of the board's own devices
# Of the tables that lead to ACPI and ACPI's own, about: a kernel begins at the next multiple of 2 MiB.
_FIRMWARE_SIZE: Final = 0x2_0000
_SEED_SIZE: Final = 32


def check_options(config: VmConfig) -> None:
    """Refuse what is x86's alone."""
    if config.platform.irqchip is not Irqchip.KERNEL:
        raise ConfigError(
            "--platform irqchip",
            f"{config.platform.irqchip.value}: an AArch64 machine has its GIC in KVM; leave it out",
        )
    if config.cpus.template != HOST_TEMPLATE:
        raise ConfigError(
            "--cpus template", f"{config.cpus.template} is told by CPUID, which AArch64 has not; leave it out"
        )
    if config.boot_protocol is not BootProtocol.AUTO:
        raise ConfigError(
            "--boot-protocol",
            f"{config.boot_protocol.value}: an AArch64 kernel has one entry; leave it out (auto)",
        )


def check_kernel(config: VmConfig, image: "KernelImage") -> None:
    """Find out what `Board.load` would make of the files; tree and tables are a few KiB."""
    kept = (GuestRange(RAM_START, _FIRMWARE_SIZE),) if _by_acpi(config) else ()
    load_image(
        None,
        image,
        ram_ranges=ram_ranges(config.memory.size),
        fdt=Fdt(FdtNode(""), reservations=kept),
        cmdline=config.cmdline,
        initrd=config.initramfs,
    )


class Board:
    """The board of an AArch64 machine."""

    window = _WINDOW
    first_gsi = _FIRST_FREE_GSI

    def __init__(self, config: VmConfig) -> None:
        self._config = config
        self.hypervisor = KvmArm64Hypervisor()
        self.serial: Pl011 | None = None
        self._vcpus: list[KvmArm64Vcpu] = []

    def create_vm(self) -> KvmArm64Vm:
        """Create the VM."""
        self._vm = self.hypervisor.create_vm()
        return self._vm

    def create_vcpus(self, stack: ExitStack) -> Sequence[KvmArm64Vcpu]:
        """Create the vCPUs, and the GIC, which knows how many there are."""
        for index in range(self._config.cpus.boot):
            vcpu = self._vm.create_vcpu(index)
            stack.callback(vcpu.close)
            self._vcpus.append(vcpu)
        self._vm.create_gic(_GIC)
        return self._vcpus

    def allocator(self) -> SystemAllocator:
        """Return allocators of the window and of shared interrupts; there are no ports."""
        return SystemAllocator(
            pio=AddressAllocator(0, 1 << 16, AddressSpace.PIO),
            mmio_low=AddressAllocator(_WINDOW.base, _WINDOW.size),
            mmio_high=AddressAllocator(1 << 39, 1 << 39),
            gsi=IdAllocator(_FIRST_FREE_GSI, aarch64.FIRST_SPI + _GIC.lines - 1),
        )

    def line(self, gsi: int) -> Interrupt:
        """Return the line of an interrupt id; the VM counts its lines from the first that is shared."""
        return self._vm.irq_line(gsi - aarch64.FIRST_SPI)

    def devices(self, wiring: Wiring) -> Iterator[tuple[BusDevice, DeviceNode]]:
        """Create clock, boot timer, pvpanic, perhaps the serial port."""
        rtc = Pl031(self.line(_RTC_GSI), call_later=wiring.events.call_later)
        yield rtc, rtc.describe(base=_RTC, gsi=_RTC_GSI)
        timer, pvpanic = BootTimer(wiring.requests.boot_mark), Pvpanic(wiring.requests.panic)
        yield timer, _at(timer.describe(), _BOOT_TIMER)
        yield pvpanic, _at(pvpanic.describe(), _PVPANIC)
        if wiring.serial_out is not None:
            self.serial = Pl011(wiring.serial_out, self.line(_UART_GSI), defer=wiring.soon)
            yield self.serial, self.serial.describe(base=_UART, gsi=_UART_GSI)

    def answer_unclaimed(self, ranges: Iterable[AddressRange]) -> None:
        """Do nothing: a guest looks only where its tables point."""

    def platform(self, memory: GuestMemoryMmap, nodes: Sequence[DeviceNode]) -> Platform:
        """Describe the machine, from which its device tree or its ACPI tables are made."""
        redistributors = len(self._vcpus) * aarch64.REDISTRIBUTOR_SIZE
        return Platform(
            "aarch64",
            cpus=tuple(self._cpu(vcpu) for vcpu in self._vcpus),
            memory=tuple(MemoryNode(region.base, region.size) for region in memory),
            devices=tuple(nodes),
            gic=GicNode(
                _mmio(_GIC.distributor, aarch64.DISTRIBUTOR_SIZE),
                _mmio(_GIC.redistributors, redistributors),
                _mmio(_ITS, aarch64.ITS_SIZE),
            ),
        )

    def _cpu(self, vcpu: KvmArm64Vcpu) -> CpuNode:
        topology = self._config.cpus.topology
        place = None if topology is None else topology.place(vcpu.index)
        return CpuNode(vcpu.index, vcpu.affinity, place=place)

    def load(self, memory: GuestMemoryMmap, platform: Platform) -> LoadedImage:
        """Load the kernel and its device tree, which describes the machine or leads to ACPI tables."""
        config = self._config
        tree = _acpi_tree(memory, platform) if _by_acpi(config) else platform_tree(platform)
        with open_kernel(config.kernel) as image:
            loaded = load_image(
                memory,
                image,
                ram_ranges=_ranges(memory),
                fdt=tree,
                cmdline=config.cmdline,
                initrd=config.initramfs,
                rng_seed=os.urandom(_SEED_SIZE),
            )
        entry = aarch64.EntryState(pc=loaded.entry, x0=loaded.fdt_range.base)
        self._vcpus[0].set_entry_state(entry)
        return loaded


def _by_acpi(config: VmConfig) -> bool:
    return config.platform.tables is Tables.ACPI


def _ranges(memory: GuestMemoryMmap) -> list[tuple[int, int]]:
    return [(region.base, region.size) for region in memory]


def _acpi_tree(memory: GuestMemoryMmap, platform: Platform) -> Fdt:
    """Write ACPI tables to the begin of RAM, and return the tree by which Linux finds them."""
    # A machine that its device tree describes starts without the code for them.
    from acpi_tables import build_tables  # noqa: PLC0415
    from linux_loader.uefi import tables_address, uefi_handover  # noqa: PLC0415

    tables = build_tables(platform, tables_address(RAM_START))
    where = GuestRange(tables.address, len(tables.blob))
    handover = uefi_handover(RAM_START, where, tables.rsdp_address, _ranges(memory))
    memory.write(tables.address, tables.blob)
    memory.write(handover.address, handover.blob)
    return handover.fdt


def _mmio(base: int, size: int) -> AddressRange:
    return AddressRange(AddressSpace.MMIO, base, size)


def _at(node: DeviceNode, base: int) -> DeviceNode:
    """The node of a device with ports, moved to an address."""
    return attrs.evolve(node, ranges=(_mmio(base, node.ranges[0].size),))
