"""The tiny guests with which `probe` measures KVM on x86-64."""

from contextlib import ExitStack
from typing import Final

import attrs
import kvm_ioctls as kvm

from vm_hypervisor._errors import HypervisorUnavailableError
from vm_hypervisor.arch._probe_vm import vm_with_memory

CAPABILITIES: Final = (
    "IRQCHIP",
    "IRQFD",
    "IOEVENTFD",
    "IMMEDIATE_EXIT",
    "TSC_DEADLINE_TIMER",
    "SPLIT_IRQCHIP",
    "X2APIC_API",
    "NESTED_STATE",
    "DIRTY_LOG_RING",
    "GUEST_MEMFD",
    "MEMORY_ATTRIBUTES",
)

_CODE = 0x1000
_TABLES = 0x2000
_PORT = 0x10
_MARK = 0x564D4D21  # what CPUID is told to say; no processor does
_MARK_LEAF = 0x4000_0000
_CR0_PE, _CR0_PG, _CR4_PAE = 1, 1 << 31, 1 << 5
_EFER_LONG_MODE = 1 << 8 | 1 << 10
_RFLAGS_IOPL3 = 3 << 12
_HUGE_PAGE = 1 << 7

# dec ecx; jnz -3; out 0x10, al; hlt
LOOP: Final = b"\x49\x75\xfd\xe6\x10\xf4"
# The same bytes in 64-bit code: mov eax, 0x40000000; cpuid; mov eax, ebx; out 0x10, eax; jmp $
_CPUID = b"\xb8\x00\x00\x00\x40\x0f\xa2\x89\xd8\xe7\x10\xeb\xfe"
# out 0x11, al; jmp -4
EXIT_LOOP: Final = b"\xe6\x11\xeb\xfc"


def start_loop(vcpu: kvm.VcpuFd, loops: int) -> None:
    """Set it to the beginning of so many rounds."""
    vcpu.set_regs(kvm.Regs(rip=_CODE, rcx=loops, rflags=2))


def identity_virtualised(system: kvm.Kvm) -> bool:
    """Tell whether CPUID answers in ring 3 what it was told to."""
    with ExitStack() as stack:
        vcpu = guest(stack, system, _CPUID, user=True)
        vcpu.run()
        return reported(vcpu) == _MARK


def reported(vcpu: kvm.VcpuFd) -> int:
    """Return what a guest's port write said.

    Raises:
        HypervisorUnavailableError: it came back with another exit.
    """
    exit_ = vcpu.io.exit()
    if not isinstance(exit_, kvm.IoOut) or exit_.port != _PORT:
        raise HypervisorUnavailableError(f"/dev/kvm cannot run a tiny guest: it came back with {exit_!r}")
    return int.from_bytes(exit_.data, "little")


def guest(stack: ExitStack, system: kvm.Kvm, code: bytes, *, user: bool = False) -> kvm.VcpuFd:
    """Return a vCPU that starts at `code`, in ring 3 for a `user`, else in ring 0."""
    vm = vm_with_memory(stack, system, 0, {_CODE: code, _TABLES: _page_tables()})
    vcpu = stack.enter_context(vm.create_vcpu(0))
    # Before the registers: KVM takes long mode only from a guest whose CPUID has it.
    mark = kvm.CpuidEntry(function=_MARK_LEAF, eax=_MARK_LEAF, ebx=_MARK)
    entries = [entry for entry in system.get_supported_cpuid() if entry.function != _MARK_LEAF]
    vcpu.set_cpuid2([*entries, mark])
    (_ring3 if user else _ring0)(vcpu)
    return vcpu


def _ring0(vcpu: kvm.VcpuFd) -> None:
    """32-bit protected mode, flat, no paging."""
    sregs = vcpu.get_sregs()
    flat = kvm.Segment(base=0, limit=0xFFFF_FFFF, selector=16, type=3, present=1, db=1, s=1, g=1)
    sregs.cs = attrs.evolve(flat, selector=8, type=11)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat
    sregs.cr0 |= _CR0_PE
    vcpu.set_sregs(sregs)
    vcpu.set_regs(kvm.Regs(rip=_CODE, rflags=2))


def _ring3(vcpu: kvm.VcpuFd) -> None:
    """64-bit mode, the first 2 MiB mapped for users, I/O privilege level 3."""
    sregs = vcpu.get_sregs()
    flat = kvm.Segment(base=0, limit=0xFFFF_FFFF, selector=0x23, type=3, present=1, dpl=3, db=1, s=1, g=1)
    sregs.cs = attrs.evolve(flat, selector=0x1B, type=11, db=0, l=1)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat
    sregs.cr0 |= _CR0_PE | _CR0_PG
    sregs.cr3 = _TABLES
    sregs.cr4 |= _CR4_PAE
    sregs.efer |= _EFER_LONG_MODE
    vcpu.set_sregs(sregs)
    vcpu.set_regs(kvm.Regs(rip=_CODE, rflags=2 | _RFLAGS_IOPL3))


def _page_tables() -> bytes:
    user = 7  # present, writable, user
    levels = (_TABLES + 0x1000 | user, _TABLES + 0x2000 | user, _HUGE_PAGE | user)
    return b"".join(entry.to_bytes(8, "little").ljust(0x1000, b"\0") for entry in levels)
