"""Step 8: several processors, and a lifecycle: pause, look, resume, end. Your own VMM."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

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
from vm_hypervisor import KvmHypervisor, MemorySlots, VcpuManager, unclaimed_ports
from vm_hypervisor.arch import x86_64
from vm_hypervisor.cpuid import Topology
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap
from vmm_memory.arch.x86_64 import ram_ranges

MEMORY, CPUS, ACPI = 256 << 20, Topology(cores=2), 0xE_0000  # bytes of RAM; vCPUs; where a guest looks
VIRTIO, FIRST_GSI = 0xD000_0000, 5  # where the virtio devices are, and their interrupt lines
BIOS_AREA = E820Entry(0x9_FC00, 0x10_0000 - 0x9_FC00, E820Type.RESERVED)
CMDLINE = f"console=ttyS0 quiet panic=-1 pci=off {stock.INIT}"
SCRIPT = """
echo guest: $(nproc) CPUs, press enter
read line
mkdir /mnt; mount -t ext4 /dev/vda /mnt; echo "$line" > /mnt/line
umount /mnt; poweroff -f
"""


class Machine:
    """One guest, from its RAM to its end."""

    def __init__(
        self,
        kernel: Path,
        initramfs: Path,
        virtio: Sequence[VirtioDevice],
        events: SimpleQueue[str],
        stack: ExitStack,
    ) -> None:
        """Build everything; `stack` gives it back, last first, and `events` gets what happens."""
        self.stack = stack
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
        self.serial = Serial16550(Console(events).write, self.vm.irq_line(uart.interrupts[0].gsi))
        self.add(self.serial, uart)
        self.acpi = AcpiRegisters(lambda: events.put("reset"), lambda state: events.put(f"sleep S{state}"))
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
        self.vcpus = [self.vm.create_vcpu(index) for index in range(CPUS.cpus)]
        for index, vcpu in enumerate(self.vcpus):
            stack.callback(vcpu.close)
            x86_64.prepare_vcpu(vcpu, hypervisor.supported_cpuid(), index=index, topology=CPUS)
        self.vcpus[0].set_entry_state(loaded.entry)  # the guest starts the others itself
        self.manager = VcpuManager(
            self.vcpus,
            lambda vcpu: self.io.reader(f"vcpu{vcpu.index}"),
            lambda stop: events.put(f"{stop.exit or stop.error}"),
            on_thread_start=hypervisor.prepare_vcpu_thread,
        )
        stack.callback(self.manager.stop)

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
            cpus=tuple(CpuNode(index, index) for index in range(CPUS.cpus)),
            memory=tuple(MemoryNode(region.base, region.size) for region in self.memory.memory()),
            devices=tuple(self.nodes),
            ioapics=(IoApicNode(0, x86_64.IO_APIC_BASE),),
            reset=reset,
            sleep_control=control,
            sleep_status=status,
        )


class Console:
    """Shows what the guest prints, and says when it waits for a line."""

    def __init__(self, events: SimpleQueue[str]) -> None:
        self.text, self.events = b"", events

    def write(self, data: bytes) -> None:
        """Take output; on the thread of the vCPU that writes."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self.text = (self.text + data)[-100:]
        if self.text.endswith(b"press enter\r\n"):
            self.events.put("waiting")


def main() -> None:
    """Boot, pause the machine when its guest waits for us, look into it, and let it go on."""
    events: SimpleQueue[str] = SimpleQueue()
    with ExitStack() as stack:
        kernel, initramfs = stock.guest(stack, SCRIPT)
        image = stock.disk(stack)
        disk = VirtioBlk("disk0", DiskImage(image))
        machine = Machine(kernel, initramfs, [disk, Entropy()], events, stack)
        machine.manager.start()
        if (what := events.get()) == "waiting":
            machine.manager.pause()  # no vCPU executes guest code now
            print("paused at", *(hex(vcpu.fd.get_regs().rip) for vcpu in machine.vcpus), flush=True)
            machine.manager.resume()
            machine.serial.enqueue(b"hello\n")
            what = events.get()
        machine.manager.stop()
        print(f"the guest ended with {what}")
        print(f"on the disk: {stock.read(image, 'line')}", end="")


if __name__ == "__main__":
    main()
