"""The machine: configuration in, wired objects out. No mechanism lives here.

x86-64 without PCI: RAM with a hole below 4 GiB, interrupt controllers in KVM or half here, a serial port, a
clock, reset and sleep registers, and virtio devices on virtio-mmio, told to the guest by ACPI.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final, Protocol

import attrs
from acpi_tables import build_tables
from linux_loader import BootProtocol, LoadedKernel, load
from virtio_devices import RingOptions, VirtioDevice, VirtioMmio
from vm_device import (
    I8042,
    AcpiRegisters,
    AddressAllocator,
    AllocPolicy,
    BootTimer,
    BusDevice,
    CmosRtc,
    DeviceTree,
    DeviceTreeError,
    EventManager,
    IdAllocator,
    IoManager,
    IoReader,
    Pvpanic,
    PvpanicEvent,
    Serial16550,
    SystemAllocator,
)
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    InterruptSpec,
    IoApicNode,
    MemoryNode,
    Platform,
)
from vm_hypervisor import (
    Irqchip,
    KvmHypervisor,
    KvmVcpu,
    KvmVm,
    MemorySlots,
    UnsupportedFeatureError,
    unclaimed_ports,
)
from vm_hypervisor.arch import x86_64
from vmm_memory import GuestMemoryAtomic, RegionBusyError

from vmm_reference._config import VmConfig
from vmm_reference._config_rings import RingConfig
from vmm_reference._errors import ConfigError
from vmm_reference._open import BIOS_AREA, guest_ram, loader_protocol, open_disk, open_kernel, open_rng

_ACPI_TABLES: Final = 0xE_0000  # where a guest that is not told looks for the RSDP
_FIRST_FREE_GSI: Final = 5  # below are those of fixed legacy devices
_RTC_GSI: Final = 8
_MMIO_HOLE: Final = AddressRange(AddressSpace.MMIO, 0xD000_0000, 0x1000_0000)
_SEED_SIZE: Final = 32


class PlatformDevice(BusDevice, Protocol):
    """A device of the caller's: a `BusDevice` that says where it is."""

    def describe(self) -> DeviceNode:
        """Return id, ranges and interrupts."""
        ...


@attrs.frozen
class GuestRequests:
    """What the guest can ask of its machine; called on vCPU threads, must not wait.

    Args:
        reset: the guest reset the machine.
        sleep: it entered an ACPI sleep state (SLP_TYP, 5 is soft-off).
        boot_mark: it wrote to the boot timer (monotonic ns, value).
        panic: its kernel reported a panic, or another of pvpanic's events.
        device_event: something happened to a device (id, event, why); not the guest's doing, from any thread.
    """

    reset: Callable[[], None]
    sleep: Callable[[int], None]
    boot_mark: Callable[[int, int], None]
    panic: Callable[[PvpanicEvent], None]
    device_event: Callable[[str, str, str], None] = lambda _id, _event, _why: None


class Machine:
    """All hardware of one guest, created from a configuration and ready to run."""

    def __init__(
        self,
        config: VmConfig,
        requests: GuestRequests,
        *,
        serial_out: Callable[[bytes], None] | None,
        devices: Sequence[PlatformDevice] = (),
    ) -> None:
        """Build everything up to the vCPUs' start state; on failure everything is given back.

        Args:
            config: the machine.
            requests: who is told what the guest asks for.
            serial_out: takes the serial port's output; None builds no serial port.
            devices: further devices, already placed where no other is.

        Raises:
            ConfigError: a file cannot be used, or a size does not fit.
            vm_hypervisor.HypervisorUnavailableError: no usable KVM.
        """
        self.config = config
        self.io = IoManager()
        self.tree: DeviceTree[object] = DeviceTree()
        self.serial: Serial16550 | None = None
        self.virtio: list[VirtioMmio] = []
        self.vcpus: list[KvmVcpu] = []
        self._nodes: list[DeviceNode] = []
        with ExitStack() as stack:
            self._stack = stack
            self.hypervisor = stack.enter_context(KvmHypervisor())
            self._check_vcpus()
            self._build(requests, serial_out, devices)
            self._stack = stack.pop_all()

    def _check_vcpus(self) -> None:
        most = self.hypervisor.max_vcpus
        if self.config.cpus.boot > most:
            raise ConfigError("--cpus boot", f"{self.config.cpus.boot} vCPUs; this host's KVM allows {most}")
        usable = os.sched_getaffinity(0)
        for vcpu, cpus in self.config.cpus.affinity.items():
            if not cpus <= usable:
                raise ConfigError(
                    "--cpus affinity",
                    f"vCPU {vcpu} shall run on host CPUs {sorted(cpus)}; usable are {sorted(usable)}",
                )

    def _build(
        self,
        requests: GuestRequests,
        serial_out: Callable[[bytes], None] | None,
        devices: Sequence[PlatformDevice],
    ) -> None:
        config, stack = self.config, self._stack
        self.events = stack.enter_context(EventManager("vmm-devices"))
        self.memory = GuestMemoryAtomic()
        stack.callback(self._close_memory)
        self.vm = self._create_vm()
        stack.callback(self.vm.close)
        slots = MemorySlots(self.vm)
        self.memory.add_listener(slots)
        # A closed VM has no slots: the map must not tell it about its own end.
        stack.callback(self.memory.remove_listener, slots)
        for region in guest_ram(config.memory):
            self.memory.insert_region(region)
        self.allocator = _allocator()
        self._add_legacy(requests, serial_out)
        callers = [device.describe().id for device in devices]
        for device in devices:
            self._add_fixed(device, device.describe())
        for name, disk in zip(config.disk_ids(), config.disks, strict=True):
            self._add_virtio(open_disk(name, disk), disk.rings)
        if config.nets:
            self._add_nets(requests)
        self._add_virtio(open_rng(config.rng), config.rng.rings)
        self._standard = frozenset(node.id for node in self._nodes if node.id not in callers)
        self._answer_unclaimed_ports()
        self.loaded = self._load_kernel()
        self._create_vcpus()

    def _create_vm(self) -> KvmVm:
        irqchip = Irqchip(self.config.platform.irqchip.value)
        try:
            return self.hypervisor.create_vm(irqchip=irqchip)
        except UnsupportedFeatureError as error:
            if irqchip is Irqchip.KERNEL:
                raise
            raise ConfigError("--platform irqchip", f"{error} (irqchip=kernel)") from None

    def _close_memory(self) -> None:
        for region in self.memory.memory():
            self.memory.remove_region(region.base, region.size)
            # A caller that kept a snapshot keeps the memory, not the machine.
            with suppress(RegionBusyError):
                region.close()

    def add_device(self, device: PlatformDevice) -> None:
        """Add a device of the caller's own, before the guest runs or while it does.

        The guest's ACPI tables name only the devices given at creation.

        Args:
            device: placed where no other is, with an id of its own.

        Raises:
            vm_device.VmDeviceError: its place or id is taken; nothing changed.
        """
        self._add_fixed(device, device.describe())
        self._answer_unclaimed_ports()

    def remove_device(self, id: str) -> None:  # noqa: A002 - ids are what devices have
        """Take a device out; on return no vCPU is inside one of its methods, nor will be.

        Args:
            id: of a device that `add_device` added, or that was given at creation. Not from inside
                a device's method.

        Raises:
            vm_device.VmDeviceError: there is none, or it is the machine's own; nothing changed.
        """
        if id in self._standard:
            raise DeviceTreeError(id, "belongs to the machine; only the caller's own devices can be removed")
        self.tree.remove(id)
        node = next(node for node in self._nodes if node.id == id)
        self._nodes.remove(node)
        self.io.unregister(node.ranges)
        self.allocator.release_owner(id)
        self._answer_unclaimed_ports()
        while not self.io.grace():
            pass  # a method of the device is under way, and a device's methods end

    def _answer_unclaimed_ports(self) -> None:
        self.vm.set_native_answers(unclaimed_ports(r for node in self._nodes for r in node.ranges))

    def _add_fixed(self, device: BusDevice, node: DeviceNode) -> None:
        """Add a device that says itself where it is; what is allocated later keeps clear of it."""
        self.tree.add(node.id, device)
        try:
            self._claim(node)
            self.io.register(node.ranges, device)
        except BaseException:
            self.tree.remove(node.id)
            self.allocator.release_owner(node.id)
            raise
        self._nodes.append(node)

    def _claim(self, node: DeviceNode) -> None:
        for where in node.ranges:
            pool = self.allocator.pio if where.space is AddressSpace.PIO else self.allocator.mmio_low
            if where.space is AddressSpace.PIO or _MMIO_HOLE.contains(where.base, where.size):
                pool.allocate(where.size, policy=AllocPolicy.EXACT, at=where.base, owner=node.id)
        for line in node.interrupts:
            if line.gsi >= _FIRST_FREE_GSI:
                self.allocator.gsi.allocate(node.id, at=line.gsi)

    def _add_legacy(self, requests: GuestRequests, serial_out: Callable[[bytes], None] | None) -> None:
        ram = self.memory.memory()
        below = sum(region.size for region in ram if region.base < 1 << 32)
        above = sum(region.size for region in ram if region.base >= 1 << 32)
        rtc = CmosRtc(
            interrupt=self.vm.irq_line(_RTC_GSI),
            call_later=self.events.call_later,
            memory_below_4g=below,
            memory_above_4g=above,
        )
        self._add_fixed(rtc, rtc.describe(gsi=_RTC_GSI))
        self.acpi_registers = AcpiRegisters(requests.reset, requests.sleep)
        timer, pvpanic = BootTimer(requests.boot_mark), Pvpanic(requests.panic)
        for device in (I8042(requests.reset), timer, pvpanic, self.acpi_registers):
            self._add_fixed(device, device.describe())
        if self.vm.ioapic is not None:
            self._add_fixed(self.vm.ioapic, self.vm.ioapic.describe(base=x86_64.IO_APIC_BASE))
        if serial_out is not None:
            node = Serial16550.describe()
            self.serial = Serial16550(
                serial_out, self.vm.irq_line(node.interrupts[0].gsi), defer=_soon(self.events)
            )
            self._add_fixed(self.serial, node)

    def _add_nets(self, requests: GuestRequests) -> None:
        # A machine without a card starts without the code for it.
        from vmm_reference._open_net import open_net  # noqa: PLC0415

        for name, net in zip(self.config.net_ids(), self.config.nets, strict=True):
            failed = partial(requests.device_event, name, "capture-failed")
            self._add_virtio(open_net(name, net, failed), net.rings)

    def _add_virtio(self, device: VirtioDevice, rings: RingConfig) -> None:
        # The transport closes it too, which is harmless; before there is one, the image's lock would stay.
        self._stack.callback(device.close)
        position = len(self.virtio)
        where = self.allocator.mmio_low.allocate(0x1000, align=0x1000, owner=device.id)
        line = InterruptSpec(self.allocator.gsi.allocate(device.id))
        transport = VirtioMmio(
            device,
            base=where.base,
            interrupt=self.vm.irq_line(line.gsi),
            memory=self.memory,
            spec=line,
            uid=position,
            rings=RingOptions(**attrs.asdict(rings)),
        )
        self._stack.callback(transport.close)
        for bell in transport.notify_ranges:
            doorbell = AddressRange(AddressSpace.MMIO, bell.address, bell.size)
            self.vm.register_doorbell(bell.fd, doorbell, bell.datamatch)
            self._stack.callback(self.vm.unregister_doorbell, bell.fd, doorbell, bell.datamatch)
        node = transport.describe()
        self.tree.add(node.id, transport)
        self.io.register(node.ranges, transport)
        self._nodes.append(node)
        self.virtio.append(transport)

    @property
    def platform(self) -> Platform:
        """The one description of the machine, from which its ACPI tables are made."""
        control, status, reset = self.acpi_registers.registers()
        return Platform(
            "x86_64",
            cpus=tuple(CpuNode(index, index) for index in range(self.config.cpus.boot)),
            memory=tuple(MemoryNode(region.base, region.size) for region in self.memory.memory()),
            devices=tuple(self._nodes),
            ioapics=(IoApicNode(0, x86_64.IO_APIC_BASE),),
            lapic_address=x86_64.LOCAL_APIC_BASE,
            reset=reset,
            sleep_control=control,
            sleep_status=status,
        )

    def _load_kernel(self) -> LoadedKernel:
        config, memory = self.config, self.memory.memory()
        tables = build_tables(self.platform, _ACPI_TABLES)
        protocol = loader_protocol(config.boot_protocol)
        with open_kernel(config.kernel) as image:
            loaded = load(
                memory,
                image,
                ram_ranges=[(region.base, region.size) for region in memory],
                protocol=protocol,
                cmdline=config.cmdline,
                initrd=config.initramfs,
                reserved=(BIOS_AREA,),
                rsdp_addr=tables.rsdp_address,
                rng_seed=None if protocol is BootProtocol.PVH else os.urandom(_SEED_SIZE),
            )
        memory.write(tables.address, tables.blob)
        memory.write(*self.acpi_registers.reset_vector())
        return loaded

    def _create_vcpus(self) -> None:
        cpuid = self.hypervisor.supported_cpuid()
        count = self.config.cpus.boot
        for index in range(count):
            vcpu = self.vm.create_vcpu(index)
            self._stack.callback(vcpu.close)
            x86_64.prepare_vcpu(vcpu, cpuid, index=index, count=count)
            self.vcpus.append(vcpu)
        self.vcpus[0].set_entry_state(self.loaded.entry)

    def io_reader(self, vcpu: KvmVcpu) -> IoReader:
        """Return a vCPU thread's own way to the buses."""
        reader = self.io.reader(f"vcpu{vcpu.index}")
        self._stack.callback(reader.close)
        return reader

    def close(self) -> None:
        """Give everything back.

        Raises:
            kvm_ioctls.KvmStateError: a vCPU runs; it keeps its memory and devices, and close can be repeated.
        """
        for vcpu in self.vcpus:
            vcpu.close()
        if self.serial is not None:
            self.serial.flush()
        self._stack.close()


def _allocator() -> SystemAllocator:
    return SystemAllocator(
        pio=AddressAllocator(0, 1 << 16, AddressSpace.PIO),
        mmio_low=AddressAllocator(_MMIO_HOLE.base, _MMIO_HOLE.size),
        mmio_high=AddressAllocator(1 << 40, 1 << 40),
        gsi=IdAllocator(_FIRST_FREE_GSI, x86_64.IO_APIC_PINS - 1),
    )


def _soon(events: EventManager) -> Callable[[Callable[[], None]], None]:
    return lambda flush: events.call_later(0.005, flush)
