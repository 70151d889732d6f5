"""Step 2: memory that follows a map, and a device on the bus."""

from contextlib import ExitStack

from kvm_ioctls import Regs
from vm_device import IoManager
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import Kicked, KvmHypervisor, KvmVcpu, MemorySlots
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap

CODE, PORT = 0x1000, 0x50
PROGRAM = bytes.fromhex(
    "b0 11 e6 50"  # mov al, 17; out 0x50, al    ; add 17
    "b0 19 e6 50"  # mov al, 25; out 0x50, al    ; add 25
    "e4 50"  #       in al, 0x50                 ; the sum so far
    "e6 51"  #       out 0x51, al                ; report it
    "eb fe"  #       jmp to itself, for ever
)


class Adder:
    """Two ports: writes to the first add up, reads of it give the sum; a write to the second ends the run."""

    def __init__(self, vcpu: KvmVcpu) -> None:
        self.vcpu, self.sum, self.report = vcpu, 0, -1

    def read(self, offset: int, size: int) -> int:
        """Answer IN; a value wider than the access is cut."""
        return self.sum if offset == 0 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Take OUT."""
        if offset == 0:
            self.sum += value
        else:
            self.report = value
            self.vcpu.kick()  # `run` returns Kicked before the guest's next instruction


def main() -> None:
    """Run the program until the device ends it."""
    with ExitStack() as stack:
        hypervisor = stack.enter_context(KvmHypervisor())
        vm = hypervisor.create_vm()
        stack.callback(vm.close)
        memory = GuestMemoryAtomic()
        memory.add_listener(MemorySlots(vm))  # from here on, a region of the map is memory of the guest
        memory.insert_region(GuestRegionMmap.memfd(0, 0x10000))
        memory.memory().write(CODE, PROGRAM)
        vcpu = vm.create_vcpu(0)
        stack.callback(vcpu.close)
        sregs = vcpu.fd.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.fd.set_sregs(sregs)
        vcpu.fd.set_regs(Regs(rip=CODE))

        adder = Adder(vcpu)
        io = IoManager()
        io.register(AddressRange(AddressSpace.PIO, PORT, 2), adder)
        exit_ = vcpu.run(io.reader("vcpu0"))  # every access of the guest goes to the bus
    print(f"the guest reported {adder.report}; it was {'stopped' if exit_ == Kicked() else exit_}")


if __name__ == "__main__":
    main()
