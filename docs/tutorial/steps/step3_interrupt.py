"""Step 3: an interrupt. A device that has something to say wakes a guest that sleeps."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

from kvm_ioctls import Regs
from vm_device import Interrupt, IoManager
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import KvmHypervisor, MemorySlots
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap

CODE, HANDLER, PORT, LINE = 0x1000, 0x1100, 0x50, 5
VECTOR = 0x20 + LINE
PROGRAM = bytes.fromhex(
    "b0 11 e6 20"  # mov al, 0x11; out 0x20, al  ; the interrupt controller (8259): begin
    "b0 20 e6 21"  # mov al, 0x20; out 0x21, al  ; its line n is vector 0x20 + n
    "b0 04 e6 21"  # mov al, 0x04; out 0x21, al  ; the second controller is on line 2
    "b0 01 e6 21"  # mov al, 0x01; out 0x21, al  ; 8086 mode
    "b0 df e6 21"  # mov al, 0xdf; out 0x21, al  ; let line 5 through
    "e6 51"  #       out 0x51, al                ; say that we are ready
    "fb"  #          sti
    "f4 eb fd"  #    again: hlt; jmp again       ; sleep until an interrupt comes
)
INTERRUPT_HANDLER = bytes.fromhex(
    "e4 50 e6 50"  # in al, 0x50; out 0x50, al   ; what is it? say it back
    "b0 20 e6 20"  # mov al, 0x20; out 0x20, al  ; done: the controller may send the next
    "cf"  #          iret
)


class Keyboard:
    """Two ports: the key that was pressed, and its echo; and one to say that the guest is ready."""

    def __init__(self, line: Interrupt, done: Callable[[], None]) -> None:
        self.line, self.done, self.key, self.echo = line, done, 0, ""
        self.ready, self.taken = threading.Event(), threading.Event()

    def read(self, offset: int, size: int) -> int:
        """Give the key; on the thread of the vCPU."""
        return self.key

    def write(self, offset: int, size: int, value: int) -> None:
        """Take the echo; on the thread of the vCPU."""
        if offset == 1:
            self.ready.set()
        else:
            self.echo += chr(value)
            self.taken.set()

    def type(self, text: str) -> None:
        """Press one key after the other; on a thread of its own."""
        self.ready.wait(timeout=10)
        for key in text:
            self.key = ord(key)
            self.taken.clear()
            self.line.trigger()
            self.taken.wait(timeout=10)
        self.done()


def main() -> None:
    """Type at a guest that echoes."""
    with ExitStack() as stack:
        hypervisor = stack.enter_context(KvmHypervisor())
        vm = hypervisor.create_vm()  # with the PC's interrupt controllers, in the kernel
        stack.callback(vm.close)
        memory = GuestMemoryAtomic()
        memory.add_listener(MemorySlots(vm))
        memory.insert_region(GuestRegionMmap.memfd(0, 0x10000))
        ram = memory.memory()
        ram.write(CODE, PROGRAM)
        ram.write(HANDLER, INTERRUPT_HANDLER)
        ram.store(VECTOR * 4, 4, HANDLER)  # real mode's vector table: offset and segment, 16 bits each
        vcpu = vm.create_vcpu(0)
        stack.callback(vcpu.close)
        sregs = vcpu.fd.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.fd.set_sregs(sregs)
        vcpu.fd.set_regs(Regs(rip=CODE, rsp=0x8000))

        keyboard = Keyboard(vm.irq_line(LINE), vcpu.kick)
        io = IoManager()
        io.register(AddressRange(AddressSpace.PIO, PORT, 2), keyboard)
        typist = threading.Thread(target=keyboard.type, args=("interrupts work",))
        typist.start()
        vcpu.run(io.reader("vcpu0"))
        typist.join()
    print(f"the guest said: {keyboard.echo}")


if __name__ == "__main__":
    main()
