"""The machine: configuration in, wired objects out. No mechanism lives here.

What all machines have: RAM, a board of their architecture (`_arch`), virtio devices on virtio-mmio, and
devices of the caller's.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

import attrs
from virtio_devices import RingOptions, VirtioDevice, VirtioMmio
from vm_device import (
    AllocPolicy,
    BusDevice,
    DeviceTree,
    DeviceTreeError,
    EventManager,
    IoManager,
    IoReader,
)
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec, Platform
from vm_hypervisor import MemorySlots, Vcpu
from vmm_memory import GuestMemoryAtomic, RegionBusyError

from vmm_reference._arch import architecture
from vmm_reference._arch.base import GuestRequests, Wiring
from vmm_reference._config import VmConfig
from vmm_reference._config_rings import RingConfig
from vmm_reference._errors import ConfigError
from vmm_reference._open import guest_ram, open_disk, open_rng

if TYPE_CHECKING:
    from vmm_reference._arch.base import AnyVcpu, SerialPort

_PAGE = 0x1000


class PlatformDevice(BusDevice, Protocol):
    """A device of the caller's: a `BusDevice` that says where it is."""

    def describe(self) -> DeviceNode:
        """Return id, ranges and interrupts."""
        ...


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
            ConfigError: a file cannot be used, a size does not fit, or machines of this host's
                architecture do not have an option.
            HostError: there are no machines of this host's architecture.
            vm_hypervisor.HypervisorUnavailableError: no usable KVM.
        """
        self.config = config
        self.io = IoManager()
        self.tree: DeviceTree[object] = DeviceTree()
        self.virtio: list[VirtioMmio] = []
        self.vcpus: Sequence[AnyVcpu] = ()
        self._nodes: list[DeviceNode] = []
        arch = architecture()
        arch.check_options(config)
        self._ram_ranges = arch.ram_ranges(config.memory.size)
        with ExitStack() as stack:
            self._stack = stack
            self._board = arch.Board(config)
            self.hypervisor = stack.enter_context(self._board.hypervisor)
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
        self.vm = self._board.create_vm()
        stack.callback(self.vm.close)
        slots = MemorySlots(self.vm)
        self.memory.add_listener(slots)
        # A closed VM has no slots: the map must not tell it about its own end.
        stack.callback(self.memory.remove_listener, slots)
        for region in guest_ram(config.memory, self._ram_ranges):
            self.memory.insert_region(region)
        self.vcpus = self._board.create_vcpus(stack)
        self.allocator = self._board.allocator()
        wiring = Wiring(requests, self.events, serial_out)
        for fixed, node in self._board.devices(wiring):
            self._add_fixed(fixed, node)
        callers = [device.describe().id for device in devices]
        for device in devices:
            self._add_fixed(device, device.describe())
        for name, disk in zip(config.disk_ids(), config.disks, strict=True):
            self._add_virtio(open_disk(name, disk), disk.rings)
        if config.nets:
            self._add_nets(requests)
        self._add_virtio(open_rng(config.rng), config.rng.rings)
        self._standard = frozenset(node.id for node in self._nodes if node.id not in callers)
        self._answer_unclaimed()
        self.loaded = self._board.load(self.memory.memory(), self.platform)

    @property
    def serial(self) -> "SerialPort | None":
        """The first serial port, if the machine has one."""
        return self._board.serial

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
        self._answer_unclaimed()

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
        self._answer_unclaimed()
        while not self.io.grace():
            pass  # a method of the device is under way, and a device's methods end

    def _answer_unclaimed(self) -> None:
        self._board.answer_unclaimed(where for node in self._nodes for where in node.ranges)

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
            if where.space is AddressSpace.PIO or self._board.window.contains(where.base, where.size):
                pool.allocate(where.size, policy=AllocPolicy.EXACT, at=where.base, owner=node.id)
        for line in node.interrupts:
            if line.gsi >= self._board.first_gsi:
                self.allocator.gsi.allocate(node.id, at=line.gsi)

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
        where = self.allocator.mmio_low.allocate(_PAGE, align=_PAGE, owner=device.id)
        line = InterruptSpec(self.allocator.gsi.allocate(device.id))
        transport = VirtioMmio(
            device,
            base=where.base,
            interrupt=self._board.line(line.gsi),
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
        """The one description of the machine, from which its ACPI tables or its device tree are made."""
        return self._board.platform(self.memory.memory(), self._nodes)

    def io_reader(self, vcpu: Vcpu) -> IoReader:
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
