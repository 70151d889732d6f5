"""x86-64: the registers a boot protocol sets, the first MSRs, the chipset's addresses.

Source: Intel SDM volume 3A, AMD APM volume 2 (system registers).
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import vm_device  # whose names load when they are used

from vm_hypervisor._protocols import Vcpu
from vm_hypervisor.arch._x86_64_state import EntryState
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, Topology, normalise

__all__ = (
    "IDENTITY_MAP",
    "IO_APIC_BASE",
    "IO_APIC_PINS",
    "LOCAL_APIC_BASE",
    "TSS",
    "EntryState",
    "X86Hypervisor",
    "X86Vcpu",
    "X86Vm",
    "boot_msrs",
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

_ONE: Final = Topology()

_MSR_IA32_MISC_ENABLE = 0x1A0
_MISC_ENABLE_FAST_STRING = 1
_MSR_MTRR_DEF_TYPE = 0x2FF
_MTRR_ENABLE_WRITE_BACK = 1 << 11 | 6
_MSR_SYSENTER = (0x174, 0x175, 0x176)
_MSR_SYSCALL = (0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102)
_MSR_TSC = 0x10


class X86Hypervisor(Protocol):
    """What an x86 hypervisor has beyond `Hypervisor`."""

    def supported_cpuid(self) -> CpuTable:
        """Return what the hypervisor can show a guest, the TSC deadline timer included if it has one."""
        ...

    def feature_msrs(self) -> dict[int, int]:
        """Return the MSRs that say what guests can have, by index; {} when the hypervisor does not tell."""
        ...


class X86Vm(Protocol):
    """What an x86 VM has beyond `Vm`."""

    def create_vcpu(self, index: int, *, apic_id: int | None = None) -> Vcpu:
        """Create vCPU `index`, whose APIC id is the same number unless another is given (32 bits)."""
        ...

    @property
    def ioapic(self) -> "vm_device.IoApic | None":
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


def boot_msrs() -> tuple[tuple[int, int], ...]:
    """Return the MSRs that a boot protocol expects firmware to have set, as (index, value)."""
    zeroed = tuple((msr, 0) for msr in (*_MSR_SYSENTER, *_MSR_SYSCALL, _MSR_TSC))
    return (
        *zeroed,
        (_MSR_IA32_MISC_ENABLE, _MISC_ENABLE_FAST_STRING),
        (_MSR_MTRR_DEF_TYPE, _MTRR_ENABLE_WRITE_BACK),
    )


def prepare_vcpu(vcpu: X86Vcpu, table: CpuTable, *, index: int, topology: Topology = _ONE) -> None:
    """Put a fresh vCPU into the state that firmware would leave, all but its entry registers.

    Args:
        vcpu: the vCPU, not yet run; its APIC id is `topology.apic_id(index)`.
        table: what the hypervisor supports, or a template made of it; its MSRs are the guest's.
        index: position among the machine's processors.
        topology: of the machine; one processor if not given.

    Raises:
        CpuidError: the topology has no such processor.
    """
    seen = normalise(table, topology, index)
    vcpu.set_cpuid(seen.leaves)
    vcpu.set_msrs((*boot_msrs(), *seen.msrs.items()))
    vcpu.reset_fpu()
    vcpu.wire_lint_pins()
