"""Step 1: a guest of a few bytes, straight on /dev/kvm."""

from kvm_ioctls import Hlt, IoOut, Kvm, Regs
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

CODE, TEXT = 0x1000, 0x2000
MESSAGE = b"hello, world\n"
PROGRAM = bytes.fromhex(
    "ba f8 03"  # mov dx, 0x3f8      ; the first serial port of a PC
    "be 00 20"  # mov si, 0x2000     ; TEXT
    "f3 6e"  #    rep outsb          ; cx bytes from [si] to port dx
    "f4"  #       hlt
)


def main() -> None:
    """Give memory, set registers, run, and answer the exits."""
    ram = GuestRegionMmap.memfd(0, 0x10000)  # 64 KiB at guest-physical address 0
    memory = GuestMemoryMmap([ram])
    memory.write(CODE, PROGRAM)
    memory.write(TEXT, MESSAGE)
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.set_user_memory_region(0, guest_phys_addr=0, memory_size=ram.size, userspace_addr=ram.host_address)
        with vm.create_vcpu(0) as vcpu:
            sregs = vcpu.get_sregs()
            sregs.cs.base = sregs.cs.selector = 0  # a PC starts near the top of memory; we start at CODE
            vcpu.set_sregs(sregs)
            vcpu.set_regs(Regs(rip=CODE, rcx=len(MESSAGE)))
            while not isinstance(exit_ := vcpu.run(), Hlt):
                if not isinstance(exit_, IoOut):
                    raise SystemExit(f"the guest left in a way we did not expect: {exit_}")
                print(exit_.data.decode(), end="")
    print("the guest halted")


if __name__ == "__main__":
    main()
