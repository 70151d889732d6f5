"""Step 7: virtio devices in the machine: a disk, and the device of step 4."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import stock
from acpi_tables import build_tables
from linux_loader import E820Entry, E820Type, load
from step4_queue import Entropy
from virtio_devices import DiskImage, VirtioBlk, VirtioDevice, VirtioMmio
from vm_device import AcpiRegisters, BusDevice, IoManager, Serial16550
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
from vm_hypervisor import Exit, Kicked, KvmHypervisor, MemorySlots, unclaimed_ports
from vm_hypervisor.arch import x86_64
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap
from vmm_memory.arch.x86_64 import ram_ranges

MEMORY, ACPI = 256 << 20, 0xE_0000  # bytes of RAM; where a guest looks for the tables
VIRTIO, FIRST_GSI = 0xD000_0000, 5  # where the virtio devices are, and their interrupt lines
BIOS_AREA = E820Entry(0x9_FC00, 0x10_0000 - 0x9_FC00, E820Type.RESERVED)
CMDLINE = f"console=ttyS0 quiet panic=-1 pci=off {stock.INIT}"
SCRIPT = """
mkdir /mnt; mount -t ext4 /dev/vda /mnt
head -c 16 /dev/hwrng | od -An -tx1 | tr -d ' ' | tee /mnt/random
umount /mnt; poweroff -f
"""


class Machine:
    """One guest, from its RAM to its end."""

    def __init__(
        self, kernel: Path, initramfs: Path, virtio: Sequence[VirtioDevice], stack: ExitStack
    ) -> None:
        """Build everything; `stack` gives it back, last first."""
        self.end, self.stack = "", stack
        hypervisor = stack.enter_context(KvmHypervisor())
        self.vm = hypervisor.create_vm()
        stack.callback(self.vm.close)

        self.memory = GuestMemoryAtomic()
        self.memory.add_listener(MemorySlots(self.vm))
        for base, size in ram_ranges(MEMORY):
            self.memory.insert_region(GuestRegionMmap.memfd(base, size))

        self.io = IoManager()
        self.nodes: list[DeviceNode] = []
        uart = Serial16550.describe()
        self.serial = Serial16550(sys.stdout.buffer, self.vm.irq_line(uart.interrupts[0].gsi))
        self.add(self.serial, uart)
        self.acpi = AcpiRegisters(lambda: self.stop("reset"), lambda state: self.stop(f"sleep S{state}"))
        self.add(self.acpi, self.acpi.describe())
        for position, device in enumerate(virtio):
            self.add_virtio(device, position)
        self.vm.set_native_answers(unclaimed_ports(r for node in self.nodes for r in node.ranges))

        tables = build_tables(self.platform(), ACPI)
        ram = self.memory.memory()
        loaded = load(
            ram,
            kernel,
            ram_ranges=[(region.base, region.size) for region in ram],
            cmdline=CMDLINE,
            initrd=initramfs,
            reserved=(BIOS_AREA,),
            rsdp_addr=tables.rsdp_address,
        )
        ram.write(tables.address, tables.blob)
        ram.write(*self.acpi.reset_vector())  # where a guest without EFI jumps to reboot
        self.vcpu = self.vm.create_vcpu(0)
        stack.callback(self.vcpu.close)
        x86_64.prepare_vcpu(self.vcpu, hypervisor.supported_cpuid(), index=0)
        self.vcpu.set_entry_state(loaded.entry)

    def add(self, device: BusDevice, node: DeviceNode) -> None:
        """Put a device on the bus, and into what the guest is told."""
        self.io.register(node.ranges, device)
        self.nodes.append(node)

    def add_virtio(self, device: VirtioDevice, position: int) -> None:
        """Give a virtio device registers, an interrupt line and doorbells."""
        line = InterruptSpec(FIRST_GSI + position)
        transport = VirtioMmio(
            device,
            base=VIRTIO + 0x1000 * position,
            interrupt=self.vm.irq_line(line.gsi),
            memory=self.memory,
            spec=line,
            uid=position,
        )
        self.stack.callback(transport.close)
        for bell in transport.notify_ranges:  # a write there wakes the device's thread, and no exit is made
            where = AddressRange(AddressSpace.MMIO, bell.address, bell.size)
            self.vm.register_doorbell(bell.fd, where, bell.datamatch)
            self.stack.callback(self.vm.unregister_doorbell, bell.fd, where, bell.datamatch)
        self.add(transport, transport.describe())

    def platform(self) -> Platform:
        """Describe the machine, for ACPI."""
        control, status, reset = self.acpi.registers()
        return Platform(
            "x86_64",
            cpus=(CpuNode(0, 0),),
            memory=tuple(MemoryNode(region.base, region.size) for region in self.memory.memory()),
            devices=tuple(self.nodes),
            ioapics=(IoApicNode(0, x86_64.IO_APIC_BASE),),
            reset=reset,
            sleep_control=control,
            sleep_status=status,
        )

    def stop(self, why: str) -> None:
        """End the machine; called by a device, on the thread that runs the vCPU."""
        self.end = why
        self.vcpu.kick()

    def run(self) -> Exit:
        """Run until the guest ends, or leaves in a way that this machine has no answer to."""
        reader = self.io.reader("vcpu0")
        while isinstance(exit_ := self.vcpu.run(reader), Kicked) and not self.end:
            pass
        return exit_


def main() -> None:
    """Boot, and compare what the guest saw with what the device gave."""
    entropy = Entropy()
    with ExitStack() as stack:
        kernel, initramfs = stock.guest(stack, SCRIPT)
        image = stock.disk(stack)
        machine = Machine(kernel, initramfs, [VirtioBlk("disk0", DiskImage(image)), entropy], stack)
        last = machine.run()
        sys.stdout.flush()
        seen = bytes.fromhex(stock.read(image, "random"))
    print(f"the guest ended with {machine.end or last}")
    print(f"on the disk: {len(seen)} bytes that we gave: {seen in entropy.given}")


if __name__ == "__main__":
    main()
