"""Step 5: a Linux kernel, with a serial console."""

import sys
from contextlib import ExitStack
from pathlib import Path

import stock
from linux_loader import E820Entry, E820Type, load
from vm_device import I8042, IoManager, Serial16550
from vm_hypervisor import Exit, Kicked, KvmHypervisor, MemorySlots, unclaimed_ports
from vm_hypervisor.arch import x86_64
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap
from vmm_memory.arch.x86_64 import ram_ranges

MEMORY = 256 << 20
BIOS_AREA = E820Entry(0x9_FC00, 0x10_0000 - 0x9_FC00, E820Type.RESERVED)
CMDLINE = f"console=ttyS0 quiet panic=-1 pci=off nolapic reboot=k {stock.INIT}"
SCRIPT = "echo guest: Linux $(uname -r), $(nproc) CPU; reboot -f"


class Machine:
    """One guest, from its RAM to its end."""

    def __init__(self, kernel: Path, initramfs: Path, stack: ExitStack) -> None:
        """Build everything; `stack` gives it back, last first."""
        self.end = ""
        hypervisor = stack.enter_context(KvmHypervisor())
        self.vm = hypervisor.create_vm()
        stack.callback(self.vm.close)

        self.memory = GuestMemoryAtomic()
        self.memory.add_listener(MemorySlots(self.vm))
        for base, size in ram_ranges(MEMORY):
            self.memory.insert_region(GuestRegionMmap.memfd(base, size))

        uart, keyboard = Serial16550.describe(), I8042.describe()
        self.serial = Serial16550(sys.stdout.buffer, self.vm.irq_line(uart.interrupts[0].gsi))
        self.io = IoManager()
        self.io.register(uart.ranges, self.serial)
        self.io.register(keyboard.ranges, I8042(lambda: self.stop("reset")))
        self.vm.set_native_answers(unclaimed_ports([*uart.ranges, *keyboard.ranges]))

        ram = self.memory.memory()
        loaded = load(
            ram,
            kernel,
            ram_ranges=[(region.base, region.size) for region in ram],
            cmdline=CMDLINE,
            initrd=initramfs,
            reserved=(BIOS_AREA,),
        )
        self.vcpu = self.vm.create_vcpu(0)
        stack.callback(self.vcpu.close)
        x86_64.prepare_vcpu(self.vcpu, hypervisor.supported_cpuid(), index=0)
        self.vcpu.set_entry_state(loaded.entry)

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
    """Boot, and say how it ended."""
    with ExitStack() as stack:
        kernel, initramfs = stock.guest(stack, SCRIPT, modules=())
        machine = Machine(kernel, initramfs, stack)
        last = machine.run()
        sys.stdout.flush()
    print(f"the guest ended with {machine.end or last}")


if __name__ == "__main__":
    main()
