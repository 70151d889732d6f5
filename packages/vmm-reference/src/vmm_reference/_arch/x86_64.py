"""x86-64 without PCI: a hole below 4 GiB, interrupt controllers in KVM or half here, ACPI.

The legacy devices are a serial port, a clock, an i8042 for its reset, ACPI's reset and sleep registers.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from acpi_tables import build_tables
from linux_loader import BootProtocol, E820Entry, E820Type, LoadedKernel, check, load
from vm_device import (
    I8042,
    AcpiRegisters,
    AddressAllocator,
    BootTimer,
    BusDevice,
    CmosRtc,
    IdAllocator,
    Interrupt,
    Pvpanic,
    Serial16550,
    SystemAllocator,
)
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    IoApicNode,
    MemoryNode,
    Platform,
)
from vm_hypervisor import (
    CpuidError,
    Irqchip,
    KvmHypervisor,
    KvmVcpu,
    KvmVm,
    UnsupportedFeatureError,
    unclaimed_ports,
)
from vm_hypervisor.arch import x86_64
from vm_hypervisor.cpuid import CpuTable, Topology
from vmm_memory import GuestMemoryMmap
from vmm_memory.arch.x86_64 import ram_ranges

from vmm_reference._arch.base import Wiring
from vmm_reference._config import Tables, VmConfig
from vmm_reference._config_cpus import HOST_TEMPLATE
from vmm_reference._errors import ConfigError
from vmm_reference._open import open_kernel

if TYPE_CHECKING:
    from linux_loader import KernelImage
    from vm_hypervisor.cpuid import Template

__all__ = ("Board", "check_kernel", "check_options", "ram_ranges")

_ACPI_TABLES: Final = 0xE_0000  # where a guest that is not told looks for the RSDP
_BIOS_AREA: Final = E820Entry(0x9_FC00, 0x10_0000 - 0x9_FC00, E820Type.RESERVED)
_FIRST_FREE_GSI: Final = 5  # below are those of fixed legacy devices
_RTC_GSI: Final = 8
_MMIO_HOLE: Final = AddressRange(AddressSpace.MMIO, 0xD000_0000, 0x1000_0000)
_SEED_SIZE: Final = 32
_LAST_APIC_ID: Final = 254  # 255 is all of them while the APICs are in xAPIC mode, as they start


def check_options(config: VmConfig) -> None:
    """Refuse a device tree, a topology without APIC ids, and a CPU template that cannot be read.

    Whether the template fits is found out with KVM.
    """
    if config.platform.tables is Tables.FDT:
        raise ConfigError("--platform tables", "fdt: kernels of x86-64 take ACPI; leave it out (acpi)")
    topology = config.cpus.topology
    if topology is not None and topology.last_apic_id > _LAST_APIC_ID:
        raise ConfigError(
            "--cpus topology",
            f"{topology} needs APIC id {topology.last_apic_id}, at most {_LAST_APIC_ID} can be used; "
            "counts that are powers of two leave no holes between ids",
        )
    _template(config)


def _template(config: VmConfig) -> "Template | None":
    if config.cpus.template == HOST_TEMPLATE:
        return None
    from vm_hypervisor.cpuid import Template  # noqa: PLC0415 - a machine without one starts without

    try:
        return Template.load(config.cpus.template)
    except CpuidError as error:
        raise ConfigError("--cpus template", str(error)) from None


def check_kernel(config: VmConfig, image: "KernelImage") -> None:
    """Find out what `Board.load` would make of the files."""
    check(
        image,
        ram_ranges=ram_ranges(config.memory.size),
        protocol=BootProtocol(config.boot_protocol.value),
        cmdline=config.cmdline,
        initrd=config.initramfs,
        reserved=(_BIOS_AREA,),
    )


class Board:
    """The board of an x86-64 machine."""

    window = _MMIO_HOLE
    first_gsi = _FIRST_FREE_GSI

    def __init__(self, config: VmConfig) -> None:
        self._config = config
        self.hypervisor = KvmHypervisor()
        self.serial: Serial16550 | None = None
        self._vcpus: list[KvmVcpu] = []
        self._topology = config.cpus.topology or Topology(cores=config.cpus.boot)

    def create_vm(self) -> KvmVm:
        """Create the VM with the irqchip that was asked for."""
        irqchip = Irqchip(self._config.platform.irqchip.value)
        try:
            self._vm = self.hypervisor.create_vm(irqchip=irqchip)
        except UnsupportedFeatureError as error:
            if irqchip is Irqchip.KERNEL:
                raise
            raise ConfigError("--platform irqchip", f"{error} (irqchip=kernel)") from None
        return self._vm

    def create_vcpus(self, stack: ExitStack) -> Sequence[KvmVcpu]:
        """Create the vCPUs and set their CPUID, MSRs and LINT pins."""
        cpuid = self._cpuid()
        for index in range(self._topology.cpus):
            vcpu = self._vm.create_vcpu(index, apic_id=self._topology.apic_id(index))
            stack.callback(vcpu.close)
            x86_64.prepare_vcpu(vcpu, cpuid, index=index, topology=self._topology)
            self._vcpus.append(vcpu)
        return self._vcpus

    def _cpuid(self) -> CpuTable:
        """What guests shall see of this host's processor."""
        table, template = self.hypervisor.supported_cpuid(), _template(self._config)
        if template is None:
            return table
        try:
            return template.apply(CpuTable(table.leaves, self.hypervisor.feature_msrs()))
        except CpuidError as error:
            raise ConfigError("--cpus template", str(error)) from None

    def allocator(self) -> SystemAllocator:
        """Return allocators of ports, the hole below 4 GiB, addresses above, and pins."""
        return SystemAllocator(
            pio=AddressAllocator(0, 1 << 16, AddressSpace.PIO),
            mmio_low=AddressAllocator(_MMIO_HOLE.base, _MMIO_HOLE.size),
            mmio_high=AddressAllocator(1 << 40, 1 << 40),
            gsi=IdAllocator(_FIRST_FREE_GSI, x86_64.IO_APIC_PINS - 1),
        )

    def line(self, gsi: int) -> Interrupt:
        """Return the line of an I/O APIC's pin."""
        return self._vm.irq_line(gsi)

    def devices(self, wiring: Wiring) -> Iterator[tuple[BusDevice, DeviceNode]]:
        """Create clock, i8042, boot timer, pvpanic, ACPI registers, perhaps I/O APIC and serial port."""
        requests = wiring.requests
        ram = ram_ranges(self._config.memory.size)
        rtc = CmosRtc(
            interrupt=self.line(_RTC_GSI),
            call_later=wiring.events.call_later,
            memory_below_4g=sum(size for base, size in ram if base < 1 << 32),
            memory_above_4g=sum(size for base, size in ram if base >= 1 << 32),
        )
        yield rtc, rtc.describe(gsi=_RTC_GSI)
        self._acpi = AcpiRegisters(requests.reset, requests.sleep)
        timer, pvpanic = BootTimer(requests.boot_mark), Pvpanic(requests.panic)
        for device in (I8042(requests.reset), timer, pvpanic, self._acpi):
            yield device, device.describe()
        if self._vm.ioapic is not None:
            yield self._vm.ioapic, self._vm.ioapic.describe(base=x86_64.IO_APIC_BASE)
        if wiring.serial_out is not None:
            node = Serial16550.describe()
            line = self.line(node.interrupts[0].gsi)
            self.serial = Serial16550(wiring.serial_out, line, defer=wiring.soon)
            yield self.serial, node

    def answer_unclaimed(self, ranges: Iterable[AddressRange]) -> None:
        """Have the ports that no device has answered in C: Linux looks at hundreds of them."""
        self._vm.set_native_answers(unclaimed_ports(ranges))

    def platform(self, memory: GuestMemoryMmap, nodes: Sequence[DeviceNode]) -> Platform:
        """Describe the machine, from which its ACPI tables are made."""
        control, status, reset = self._acpi.registers()
        return Platform(
            "x86_64",
            cpus=tuple(CpuNode(index, self._topology.apic_id(index)) for index in range(self._topology.cpus)),
            memory=tuple(MemoryNode(region.base, region.size) for region in memory),
            devices=tuple(nodes),
            ioapics=(IoApicNode(0, x86_64.IO_APIC_BASE),),
            lapic_address=x86_64.LOCAL_APIC_BASE,
            reset=reset,
            sleep_control=control,
            sleep_status=status,
        )

    def load(self, memory: GuestMemoryMmap, platform: Platform) -> LoadedKernel:
        """Load the kernel, the tables, and the code that a reboot jumps to."""
        config = self._config
        tables = build_tables(platform, _ACPI_TABLES)
        protocol = BootProtocol(config.boot_protocol.value)
        with open_kernel(config.kernel) as image:
            loaded = load(
                memory,
                image,
                ram_ranges=[(region.base, region.size) for region in memory],
                protocol=protocol,
                cmdline=config.cmdline,
                initrd=config.initramfs,
                reserved=(_BIOS_AREA,),
                rsdp_addr=tables.rsdp_address,
                rng_seed=None if protocol is BootProtocol.PVH else os.urandom(_SEED_SIZE),
            )
        memory.write(tables.address, tables.blob)
        memory.write(*self._acpi.reset_vector())
        self._vcpus[0].set_entry_state(loaded.entry)
        return loaded
