"""The smallest virtual machine: 64 KiB of memory, one processor, 26 bytes of program, no operating system.

Run it with `python examples/tiny_guest.py`. It makes up a random message, puts it into the memory of a new
virtual machine, and lets a hand-assembled program in there compute the message's FNV-1a hash. The program
hands its answer out the way a PC talks to its devices, with an OUT instruction; the processor leaves the
guest at that point and this script is told. Then Python computes the same hash, and the two must agree.

That is all a virtual machine monitor does: give memory, set registers, run, and answer the exits.
"""

import random
import sys

from kvm_ioctls import Hlt, IoOut, Kvm, Regs
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

CODE, MESSAGE, ANSWER_PORT = 0x1000, 0x2000, 0x80
PROGRAM = bytes.fromhex(
    "66 b8 c5 9d 1c 81"  #            mov  eax, 0x811c9dc5     ; FNV's start value
    "32 04"  #                  next: xor  al, [si]            ; mix in a byte of the message
    "66 69 c0 93 01 00 01"  #         imul eax, eax, 16777619  ; FNV's prime
    "46"  #                           inc  si
    "e2 f4"  #                        loop next                ; cx counts down
    "ba 80 00"  #                     mov  dx, 0x80
    "66 ef"  #                        out  dx, eax             ; leaves the guest: IoOut
    "f4"  #                           hlt                      ; leaves the guest: Hlt
)


def fnv1a(message: bytes) -> int:
    """Compute on the host what the guest shall compute."""
    value = 0x811C9DC5
    for byte in message:
        value = (value ^ byte) * 16777619 % 2**32
    return value


def run_guest(message: bytes) -> int:
    """Let a virtual machine hash `message` (1 to 4096 bytes)."""
    memory = GuestMemoryMmap([ram := GuestRegionMmap.memfd(0, 0x10000)])
    memory.write(CODE, PROGRAM)
    memory.write(MESSAGE, message)
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.set_user_memory_region(0, guest_phys_addr=0, memory_size=ram.size, userspace_addr=ram.host_address)
        with vm.create_vcpu(0) as vcpu:
            sregs = vcpu.get_sregs()
            sregs.cs.base = sregs.cs.selector = 0  # a PC starts at the top of memory; we start at CODE
            vcpu.set_sregs(sregs)
            vcpu.set_regs(Regs(rip=CODE, rsi=MESSAGE, rcx=len(message)))
            answer = -1
            while not isinstance(exit_ := vcpu.run(), Hlt):
                if not isinstance(exit_, IoOut) or exit_.port != ANSWER_PORT:
                    raise SystemExit(f"the guest left in a way we did not expect: {exit_}")
                answer = int.from_bytes(exit_.data, "little")
            return answer


if __name__ == "__main__":
    text = random.randbytes(random.randint(1, 4096))
    inside, outside = run_guest(text), fnv1a(text)
    print(f"{len(text)} random bytes: guest {inside:#010x}, host {outside:#010x}")
    sys.exit(inside != outside)
