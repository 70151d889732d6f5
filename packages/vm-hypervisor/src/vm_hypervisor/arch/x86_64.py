"""x86-64: the registers a boot protocol sets, the CPUID a guest should see, the first MSRs.

Source: Intel SDM volumes 2A (CPUID) and 3A (system registers), AMD APM volume 2, and
Documentation/virt/kvm/x86/cpuid.rst of the kernel.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import attrs
from vm_device import IoApic

from vm_hypervisor.arch._x86_64_state import EntryState

__all__ = (
    "IDENTITY_MAP",
    "IO_APIC_BASE",
    "IO_APIC_PINS",
    "LOCAL_APIC_BASE",
    "TSS",
    "CpuidLeaf",
    "EntryState",
    "X86Hypervisor",
    "X86Vcpu",
    "X86Vm",
    "boot_msrs",
    "guest_cpuid",
    "prepare_vcpu",
)

LOCAL_APIC_BASE: Final = 0xFEE0_0000
"""Guest-physical address of each processor's local APIC."""
IO_APIC_BASE: Final = 0xFEC0_0000
"""Guest-physical address of the I/O APIC."""
IO_APIC_PINS: Final = 24
"""Pins of the I/O APIC: GSI 0 to 23 are its lines."""
IDENTITY_MAP: Final = 0xFFFB_C000
"""Where KVM keeps an identity-mapping page on Intel (KVM_SET_IDENTITY_MAP_ADDR)."""
TSS: Final = 0xFFFB_D000
"""Where KVM keeps three pages for real mode on Intel (KVM_SET_TSS_ADDR)."""

_CPUID1_ECX_HYPERVISOR = 1 << 31
_CPUID1_EDX_HTT = 1 << 28

_MSR_IA32_MISC_ENABLE = 0x1A0
_MISC_ENABLE_FAST_STRING = 1
_MSR_MTRR_DEF_TYPE = 0x2FF
_MTRR_ENABLE_WRITE_BACK = 1 << 11 | 6
_MSR_SYSENTER = (0x174, 0x175, 0x176)
_MSR_SYSCALL = (0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102)
_MSR_TSC = 0x10


@attrs.frozen
class CpuidLeaf:
    """One CPUID answer: leaf `function`, sub-leaf `index` (significant or not), four registers."""

    function: int
    index: int
    significant: bool
    eax: int
    ebx: int
    ecx: int
    edx: int


class X86Hypervisor(Protocol):
    """What an x86 hypervisor has beyond `Hypervisor`."""

    def supported_cpuid(self) -> tuple[CpuidLeaf, ...]:
        """Return what the hypervisor can show a guest, the TSC deadline timer included if it has one."""
        ...


class X86Vm(Protocol):
    """What an x86 VM has beyond `Vm`."""

    @property
    def ioapic(self) -> IoApic | None:
        """The I/O APIC of a split irqchip, to be put on the MMIO bus; None when it is not the VMM's."""
        ...


class X86Vcpu(Protocol):
    """What an x86 vCPU has beyond `Vcpu`: its start state."""

    def set_cpuid(self, leaves: Sequence[CpuidLeaf]) -> None:
        """Fix what CPUID answers; before the first run."""
        ...

    def set_entry_state(self, entry: EntryState) -> None:
        """Set general, segment and control registers for the first instruction."""
        ...

    def set_msrs(self, values: Iterable[tuple[int, int]]) -> None:
        """Write model-specific registers, (index, value) each."""
        ...

    def reset_fpu(self) -> None:
        """Put the FPU into the state that FNINIT leaves, MXCSR 0x1F80."""
        ...

    def wire_lint_pins(self) -> None:
        """Set LINT1 to NMI, and LINT0 to ExtINT where there is a PIC, as firmware leaves them.

        Source: MP specification 1.4, 3.6.2.
        """
        ...


def guest_cpuid(supported: Sequence[CpuidLeaf], *, index: int, count: int) -> tuple[CpuidLeaf, ...]:
    """Return what CPUID should answer on one vCPU.

    The hypervisor bit is set: without it a guest ignores kvm-clock and calibrates against a PIT
    for seconds. Topology is flat: one thread a core, all cores in one package.

    Args:
        supported: what the hypervisor can do (KVM_GET_SUPPORTED_CPUID).
        index: vCPU and its APIC id, 0 … 2^32-2.
        count: vCPUs of the VM, at least 1.
    """
    topology = sorted({leaf.function for leaf in supported} & {0xB, 0x1F})
    kept = (_adapt(leaf, index, count) for leaf in supported if leaf.function not in topology)
    # Kernels differ in how many of these sub-leaves they report; a guest needs all three.
    return (*kept, *(_topology_leaf(f, sub, index, count) for f in topology for sub in range(3)))


def _adapt(leaf: CpuidLeaf, index: int, count: int) -> CpuidLeaf:
    bits = (count - 1).bit_length()
    match leaf.function:
        case 0x1:
            ebx = leaf.ebx & 0x0000_FFFF | min(count, 255) << 16 | (index & 0xFF) << 24
            edx = leaf.edx | _CPUID1_EDX_HTT if count > 1 else leaf.edx & ~_CPUID1_EDX_HTT
            ecx = leaf.ecx | _CPUID1_ECX_HYPERVISOR
            return attrs.evolve(leaf, ebx=ebx, ecx=ecx, edx=edx)
        case 0x4 if leaf.eax & 0x1F:
            # Deterministic cache parameters, EAX[31:26]: cores a package - 1; [25:14]: sharers - 1.
            # Caches below level 3 belong to one core, which has one thread here.
            shared = count - 1 if leaf.eax >> 5 & 7 >= 3 else 0
            eax = leaf.eax & 0x3FFF | min(shared, 0xFFF) << 14 | min(count - 1, 63) << 26
            return attrs.evolve(leaf, eax=eax)
        case 0x8000_0008:
            # AMD: ECX[7:0] cores - 1, [15:12] bits of the APIC id that number them; reserved on Intel.
            ecx = leaf.ecx & ~0xF0FF | min(count - 1, 255) | min(bits, 15) << 12
            return attrs.evolve(leaf, ecx=ecx)
        case 0x8000_001E:
            return attrs.evolve(leaf, eax=index, ebx=leaf.ebx & ~0xFFFF | index & 0xFF, ecx=0)
    return leaf


def _topology_leaf(function: int, sub: int, index: int, count: int) -> CpuidLeaf:
    """Sub-leaf 0: one thread a core; 1: the cores; 2: the end mark (SDM 2A, CPUID leaf 0BH)."""
    shift, processors, kind = ((0, 1, 1), ((count - 1).bit_length(), count, 2), (0, 0, 0))[sub]
    return CpuidLeaf(
        function, sub, significant=True, eax=shift, ebx=processors, ecx=sub | kind << 8, edx=index
    )


def boot_msrs() -> tuple[tuple[int, int], ...]:
    """Return the MSRs that a boot protocol expects firmware to have set, as (index, value)."""
    zeroed = tuple((msr, 0) for msr in (*_MSR_SYSENTER, *_MSR_SYSCALL, _MSR_TSC))
    return (
        *zeroed,
        (_MSR_IA32_MISC_ENABLE, _MISC_ENABLE_FAST_STRING),
        (_MSR_MTRR_DEF_TYPE, _MTRR_ENABLE_WRITE_BACK),
    )


def prepare_vcpu(vcpu: X86Vcpu, cpuid: Sequence[CpuidLeaf], *, index: int, count: int) -> None:
    """Put a fresh vCPU into the state that firmware would leave, all but its entry registers.

    Args:
        vcpu: the vCPU, not yet run.
        cpuid: what the hypervisor supports.
        index: position and APIC id.
        count: vCPUs of the VM.
    """
    vcpu.set_cpuid(guest_cpuid(cpuid, index=index, count=count))
    vcpu.set_msrs(boot_msrs())
    vcpu.reset_fpu()
    vcpu.wire_lint_pins()
