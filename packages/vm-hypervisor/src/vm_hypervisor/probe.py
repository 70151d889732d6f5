"""Measure what this machine's KVM really does.

Capabilities say what a kernel offers; they do not say whether it runs ring 0 natively, or whether
CPUID is what the VMM set. Three tiny guests find out: a loop that is timed, one that reports CPUID,
and one that does nothing but exit.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import attrs
import kvm_ioctls as kvm
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

from vm_hypervisor._errors import HypervisorUnavailableError

__all__ = ("INTERPRETED_NS", "KvmReport", "measure")

INTERPRETED_NS = 100.0
"""From this many ns per instruction on, ring 0 is called interpreted: hardware and even QEMU's TCG
need below 20, the known interpreters about 200 and more."""

_CODE = 0x1000
_TABLES = 0x2000
_PORT = 0x10
_MARK = 0x564D4D21  # what CPUID is told to say; no processor does
_MARK_LEAF = 0x4000_0000
_CR0_PE, _CR0_PG, _CR4_PAE = 1, 1 << 31, 1 << 5
_EFER_LONG_MODE = 1 << 8 | 1 << 10
_RFLAGS_IOPL3 = 3 << 12
_HUGE_PAGE = 1 << 7
# The least of many runs: one that is preempted by another process says nothing about the KVM. The short
# loops fit between two preemptions even in an emulated host on a busy machine.
_RUNS, _LOOPS = 21, (200, 5_200)
_LONG_RUNS, _LONG_LOOPS = 7, (200, 1_000_200)
_EXITS = 200

# dec ecx; jnz -3; out 0x10, al; hlt
_LOOP = b"\x49\x75\xfd\xe6\x10\xf4"
# The same bytes in 64-bit code: mov eax, 0x40000000; cpuid; mov eax, ebx; out 0x10, eax; jmp $
_CPUID = b"\xb8\x00\x00\x00\x40\x0f\xa2\x89\xd8\xe7\x10\xeb\xfe"
# out 0x11, al; jmp -4
_EXIT_LOOP = b"\xe6\x11\xeb\xfc"

_CAPABILITIES = (
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


@attrs.frozen
class KvmReport:
    """What was measured.

    Args:
        ns_per_instruction: of a ring-0 loop.
        ns_per_exit: of a port write answered in C.
        cpuid_virtualised: CPUID answers what the VMM set, in ring 3 as well.
        max_vcpus: KVM_CAP_MAX_VCPUS.
        capabilities: KVM_CHECK_EXTENSION by name; 0 is absent.
    """

    ns_per_instruction: float
    ns_per_exit: float
    cpuid_virtualised: bool
    max_vcpus: int
    capabilities: Mapping[str, int]

    @property
    def native(self) -> bool:
        """Whether ring 0 runs natively rather than interpreted."""
        return self.ns_per_instruction < INTERPRETED_NS

    @property
    def complete(self) -> bool:
        """Whether stock kernels can be expected to run."""
        return self.native and self.cpuid_virtualised and bool(self.capabilities.get("IRQCHIP"))

    @property
    def summary(self) -> str:
        """One line: what matters for running a stock kernel."""
        how = "natively" if self.native else "interpreted"
        cpuid = "" if self.cpuid_virtualised else ", CPUID is not virtualised"
        chip = "" if self.capabilities.get("IRQCHIP") else ", no in-kernel interrupt controller"
        return f"/dev/kvm runs ring 0 {how} ({self.ns_per_instruction:.1f} ns per instruction){cpuid}{chip}"


def measure() -> KvmReport:
    """Run the tiny guests on `/dev/kvm`; takes well under a second.

    Raises:
        HypervisorUnavailableError: there is no usable `/dev/kvm`, or it cannot even run a tiny guest.
    """
    try:
        with kvm.Kvm() as system:
            return KvmReport(
                ns_per_instruction=_ns_per_instruction(system),
                ns_per_exit=_ns_per_exit(system),
                cpuid_virtualised=_reported_cpuid(system) == _MARK,
                max_vcpus=system.get_max_vcpus(),
                capabilities={name: system.check_extension(kvm.Cap[name]) for name in _CAPABILITIES},
            )
    except kvm.KvmError as error:
        raise HypervisorUnavailableError(str(error)) from None


def _guest(stack: ExitStack, system: kvm.Kvm, code: bytes, *, user: bool = False) -> kvm.VcpuFd:
    """Return a vCPU that starts at `code`, in ring 3 for a `user`, else in ring 0."""
    region = GuestRegionMmap.anonymous(0, 1 << 16)
    memory = GuestMemoryMmap([region])
    memory.write(_CODE, code)
    memory.write(_TABLES, _page_tables())
    vm = stack.enter_context(system.create_vm())
    stack.callback(_keep, region)
    vm.set_user_memory_region(
        0, guest_phys_addr=0, memory_size=region.size, userspace_addr=region.host_address
    )
    vcpu = stack.enter_context(vm.create_vcpu(0))
    # Before the registers: KVM takes long mode only from a guest whose CPUID has it.
    mark = kvm.CpuidEntry(function=_MARK_LEAF, eax=_MARK_LEAF, ebx=_MARK)
    entries = [entry for entry in system.get_supported_cpuid() if entry.function != _MARK_LEAF]
    vcpu.set_cpuid2([*entries, mark])
    (_ring3 if user else _ring0)(vcpu)
    return vcpu


def _keep(_region: GuestRegionMmap) -> None:
    """Do nothing, late: the region has to outlive the VM, which the stack closes first."""


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


def _timed(action: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start


def _loop_time(vcpu: kvm.VcpuFd, loops: int) -> int:
    vcpu.set_regs(kvm.Regs(rip=_CODE, rcx=loops, rflags=2))
    spent = _timed(vcpu.run)
    _expect_port(vcpu)
    vcpu.complete_pending()
    return spent


def _ns_per_instruction(system: kvm.Kvm) -> float:
    with ExitStack() as stack:
        vcpu = _guest(stack, system, _LOOP)
        rough = _slope(vcpu, _LOOPS, _RUNS)
        # An interpreter would take a second for the long loop that a native KVM needs for a figure.
        fine = _slope(vcpu, _LONG_LOOPS, _LONG_RUNS) if rough < INTERPRETED_NS else rough
        # The short loops have shown what it is; long ones that came out slow were disturbed, all of them.
        return fine if fine < INTERPRETED_NS else rough


def _slope(vcpu: kvm.VcpuFd, loops: tuple[int, int], runs: int) -> float:
    short, long = (min(_loop_time(vcpu, count) for _ in range(runs)) for count in loops)
    return max(long - short, 0) / (2 * (loops[1] - loops[0]))


def _ns_per_exit(system: kvm.Kvm) -> float:
    with ExitStack() as stack:
        vcpu = _guest(stack, system, _EXIT_LOOP)
        times = [_timed(vcpu.run_raw) for _ in range(_EXITS)]
    return sorted(times)[len(times) // 2]


def _reported_cpuid(system: kvm.Kvm) -> int:
    with ExitStack() as stack:
        vcpu = _guest(stack, system, _CPUID, user=True)
        vcpu.run()
        return _expect_port(vcpu)


def _expect_port(vcpu: kvm.VcpuFd) -> int:
    exit_ = vcpu.io.exit()
    if not isinstance(exit_, kvm.IoOut) or exit_.port != _PORT:
        raise HypervisorUnavailableError(f"/dev/kvm cannot run a tiny guest: it came back with {exit_!r}")
    return int.from_bytes(exit_.data, "little")
