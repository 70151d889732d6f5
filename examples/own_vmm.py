"""A VMM for one purpose, composed from the packages: boot a Linux kernel with a serial console, and no more.

Run it with `python examples/own_vmm.py [KERNEL INITRAMFS]` where `vmm doctor` says that stock kernels run on
kvm, else in the emulated host: `vmm-testhost -- python examples/own_vmm.py`. Without arguments it boots
Debian's kernel with the small init of tools/guest_init.c, which powers the machine off.

It has one vCPU, RAM, a UART and the registers that end a machine: no disk, no PCI, no clock, no keyboard
controller, no threads of its own. `vmm_reference.Machine` is the same in the large.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from acpi_tables import build_tables
from linux_loader import E820Entry, E820Type, load
from vm_device import AcpiRegisters, IoManager, Serial16550
from vm_device.platform import CpuNode, IoApicNode, MemoryNode, Platform
from vm_hypervisor import Exit, Kicked, KvmHypervisor, MemorySlots, unclaimed_ports
from vm_hypervisor.arch import x86_64
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap
from vmm_memory.arch.x86_64 import ram_ranges

MEMORY, ACPI = 256 << 20, 0xE_0000  # bytes of RAM; where a guest looks for the tables
BIOS_AREA = E820Entry(0x9_FC00, 0x10_0000 - 0x9_FC00, E820Type.RESERVED)
CMDLINE = "console=ttyS0 quiet panic=-1 pci=off"


class Machine:
    """One guest, from its RAM to its end."""

    def __init__(self, kernel: Path, initramfs: Path, cmdline: str, stack: ExitStack) -> None:
        """Build everything; `stack` gives it back, last first."""
        self.end = ""
        hypervisor = stack.enter_context(KvmHypervisor())
        self.vm = hypervisor.create_vm()
        stack.callback(self.vm.close)

        # RAM: each region that enters the map becomes a memory slot, because the slots listen to the map.
        self.memory = GuestMemoryAtomic()
        self.memory.add_listener(MemorySlots(self.vm))
        for base, size in ram_ranges(MEMORY):
            self.memory.insert_region(GuestRegionMmap.memfd(base, size))

        # Devices: each describes itself once; that places it on the bus and in the ACPI tables.
        self.io = IoManager()
        uart = Serial16550.describe()
        serial = Serial16550(sys.stdout.buffer, self.vm.irq_line(uart.interrupts[0].gsi))
        self.io.register(uart.ranges, serial)
        self.acpi = AcpiRegisters(lambda: self.stop("reset"), lambda state: self.stop(f"sleep S{state}"))
        self.io.register(self.acpi.describe().ranges, self.acpi)
        self.nodes = (uart, self.acpi.describe())
        # What nobody claims is answered in C, and never wakes Python.
        self.vm.set_native_answers(unclaimed_ports(r for node in self.nodes for r in node.ranges))

        tables = build_tables(self.platform(), ACPI)
        ram = self.memory.memory()
        loaded = load(
            ram,
            kernel,
            ram_ranges=[(region.base, region.size) for region in ram],
            cmdline=cmdline,
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

    def platform(self) -> Platform:
        """Describe the machine, for ACPI."""
        control, status, reset = self.acpi.registers()
        return Platform(
            "x86_64",
            cpus=(CpuNode(0, 0),),
            memory=tuple(MemoryNode(region.base, region.size) for region in self.memory.memory()),
            devices=self.nodes,
            ioapics=(IoApicNode(0, x86_64.IO_APIC_BASE),),
            reset=reset,
            sleep_control=control,
            sleep_status=status,
        )

    def stop(self, why: str) -> None:
        """End the machine; called by a device, on the thread that runs the vCPU."""
        self.end = why
        self.vcpu.kick()  # `run` returns Kicked before the guest's next instruction

    def run(self) -> Exit:
        """Run until the guest ends, or leaves in a way that this machine has no answer to."""
        reader = self.io.reader("vcpu0")
        while isinstance(exit_ := self.vcpu.run(reader), Kicked) and not self.end:
            pass
        return exit_


def default_guest(stack: ExitStack) -> tuple[Path, Path]:
    """Return Debian's kernel and an initramfs of ours."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    import guest  # noqa: PLC0415 - only the repository has it; a KERNEL of your own needs nothing of it

    kernel = guest.debian_guest()
    initramfs = Path(stack.enter_context(tempfile.TemporaryDirectory()), "initramfs")
    initramfs.write_bytes(guest.initramfs(kernel, modules=()))
    return kernel.image, initramfs


def main(arguments: list[str]) -> int:
    """Boot what was named; return 0 when the guest powered off."""
    with ExitStack() as stack:
        kernel, initramfs = map(Path, arguments) if arguments else default_guest(stack)
        init = "" if arguments else " rdinit=/vmm-init"
        machine = Machine(kernel, initramfs, CMDLINE + init, stack)
        last = machine.run()
        sys.stdout.flush()
    print(f"own_vmm: the guest ended with {machine.end or last}")
    return 0 if machine.end == "sleep S5" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
