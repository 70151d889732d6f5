"""The KVM backend, x86-64."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import kvm_ioctls as kvm
import vm_device  # whose names load when they are used
from vm_device import Interrupt

from vm_hypervisor._errors import UnsupportedFeatureError
from vm_hypervisor._irq import GsiRoutes, IrqLine, KvmResampledLine
from vm_hypervisor._kvm_core import KvmHypervisorCore, KvmVcpuCore, KvmVmCore
from vm_hypervisor._kvm_numbers import CAPABILITIES, EXIT_IOAPIC_EOI
from vm_hypervisor._kvm_values import cpuid_entry, kvm_segment, kvm_table, neutral_leaf
from vm_hypervisor._protocols import Irqchip, ResampledLine
from vm_hypervisor.arch import x86_64
from vm_hypervisor.arch._x86_64_state import EntryState
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable

if TYPE_CHECKING:
    from vm_hypervisor._protocols import Hypervisor, Vcpu, Vm
    from vm_hypervisor._split import SplitLines

_TSC_DEADLINE: Final = 1 << 24  # CPUID.1:ECX
# What a machine of this package cannot do without; the newest, IMMEDIATE_EXIT, came with Linux 4.11.
_REQUIRED: Final = (
    *("IMMEDIATE_EXIT", "USER_MEMORY", "DESTROY_MEMORY_REGION_WORKS", "JOIN_MEMORY_REGIONS_WORKS"),
    *("IRQCHIP", "IRQ_ROUTING", "IRQFD", "IOEVENTFD", "PIT2", "EXT_CPUID", "MP_STATE"),
    *("SET_TSS_ADDR", "SET_IDENTITY_MAP_ADDR"),
)
_LVT_LINT0, _LVT_LINT1 = 0x350, 0x360
_EXTINT, _NMI = 0x700, 0x400  # delivery mode, bits 8 to 10
_LVT_MASKED: Final = 1 << 16


class KvmHypervisor(KvmHypervisorCore):
    """KVM of an x86-64 host."""

    def supported_cpuid(self) -> CpuTable:
        """Return what KVM can show a guest (KVM_GET_SUPPORTED_CPUID and the TSC deadline capability)."""
        deadline = _TSC_DEADLINE if self._kvm.check_extension(CAPABILITIES["TSC_DEADLINE_TIMER"]) else 0
        return CpuTable(neutral_leaf(entry, deadline) for entry in self._kvm.get_supported_cpuid())

    def feature_msrs(self) -> dict[int, int]:
        """Return the feature MSRs (KVM_GET_MSR_FEATURE_INDEX_LIST and KVM_GET_MSRS, Linux 4.17)."""
        if not self._kvm.check_extension(CAPABILITIES["GET_MSR_FEATURES"]):
            return {}
        return {
            entry.index: entry.data for entry in self._kvm.get_msrs(self._kvm.get_msr_feature_index_list())
        }

    def create_vm(self, *, irqchip: Irqchip = Irqchip.KERNEL) -> "KvmVm":
        """Create a VM.

        Args:
            irqchip: KERNEL has PICs, I/O APIC and PIT in the kernel; SPLIT has an I/O APIC of
                `vm_device` (`KvmVm.ioapic`), and neither PICs nor a PIT.

        Raises:
            UnsupportedFeatureError: this KVM lacks a capability, which is named; nothing was created.
            kvm_ioctls.KvmOSError: KVM refused.
        """
        self._require(_REQUIRED)
        return KvmVm(self._kvm.create_vm(), irqchip)


class KvmVm(KvmVmCore):
    """One VM on KVM."""

    def __init__(self, vm: kvm.VmFd, irqchip: Irqchip = Irqchip.KERNEL) -> None:
        """Take over `vm` and give it its chips; on an error `vm` is closed.

        Raises:
            UnsupportedFeatureError: this KVM has no split irqchip.
            kvm_ioctls.KvmOSError: KVM refused.
        """
        try:
            vm.set_identity_map_address(x86_64.IDENTITY_MAP)
            vm.set_tss_address(x86_64.TSS)
            if irqchip is Irqchip.SPLIT:
                _split_irqchip(vm)
            else:
                vm.create_irq_chip()
                # Only guests without kvm-clock look at it, to calibrate their TSC.
                vm.create_pit2(speaker_dummy=True)
        except BaseException:
            vm.close()
            raise
        split = irqchip is Irqchip.SPLIT
        super().__init__(vm, GsiRoutes(vm, () if split else None))
        self._split = _split_lines(vm, self._routes) if split else None

    @property
    def ioapic(self) -> "vm_device.IoApic | None":
        """The I/O APIC of a split irqchip, to be put on the MMIO bus; None when it is in the kernel."""
        return None if self._split is None else self._split.ioapic

    def create_vcpu(self, index: int, *, apic_id: int | None = None) -> "KvmVcpu":
        """Create vCPU `index`, whose APIC id is the same number unless another is given (32 bits).

        Raises:
            ValueError: vCPU `index` exists.
            kvm_ioctls.KvmOSError: KVM refused; EEXIST when another has this APIC id.
        """
        if index in self._vcpus:
            raise ValueError(f"vCPU {index} exists already")
        vcpu = KvmVcpu(self, self._vm.create_vcpu(index if apic_id is None else apic_id), index)
        self._vcpus[index] = vcpu
        return vcpu

    def irq_line(self, gsi: int) -> Interrupt:
        """Return the line of an I/O APIC pin (0 … 23), the same object each time; from any thread."""
        self._check_line(gsi)
        split = self._split
        return self._line(gsi, lambda: IrqLine(self._vm, gsi) if split is None else split.line(gsi))

    def resampled_line(self, gsi: int) -> ResampledLine:
        """Return a new source of an I/O APIC pin (0 … 23); see `Vm.resampled_line`."""
        self._check_line(gsi)
        if self._split is None:
            return self._source(lambda undo: KvmResampledLine(self._vm, gsi, undo))
        return self._source(partial(self._split.resampled_line, gsi))

    @staticmethod
    def _check_line(gsi: int) -> None:
        if not 0 <= gsi < x86_64.IO_APIC_PINS:
            raise ValueError(f"gsi {gsi} is not within 0 … {x86_64.IO_APIC_PINS - 1}")

    def close(self) -> None:
        """Take the irqfds away and close the VM."""
        self._close_lines()
        self._vm.close()


class KvmVcpu(KvmVcpuCore):
    """One vCPU on KVM, x86."""

    def __init__(self, vm: KvmVm, fd: kvm.VcpuFd, index: int) -> None:
        """Run `fd`, vCPU `index` of `vm`."""
        super().__init__(vm, fd, index)
        self._ioapic = vm.ioapic

    def _answered(self, reason: int) -> bool:
        """Hand an acknowledgement to the VM's I/O APIC; False when it has none in user space."""
        exit_ = self._io.exit() if reason == EXIT_IOAPIC_EOI else None
        if self._ioapic is None or not isinstance(exit_, kvm.IoapicEoi):
            return False
        self._ioapic.end_of_interrupt(exit_.vector)
        return True

    def set_cpuid(self, leaves: Sequence[CpuidLeaf]) -> None:
        """Fix CPUID (KVM_SET_CPUID2)."""
        self._fd.set_cpuid2([cpuid_entry(leaf) for leaf in leaves])

    def set_entry_state(self, entry: EntryState) -> None:
        """Set general, segment and control registers."""
        sregs = self._fd.get_sregs()
        for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr"):
            setattr(sregs, name, kvm_segment(getattr(entry, name)))
        sregs.gdt, sregs.idt = kvm_table(entry.gdt), kvm_table(entry.idt)
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = entry.cr0, entry.cr3, entry.cr4, entry.efer
        self._fd.set_sregs(sregs)
        self._fd.set_regs(
            kvm.Regs(
                rip=entry.rip,
                rsp=entry.rsp,
                rbp=entry.rbp,
                rsi=entry.rsi,
                rbx=entry.rbx,
                rflags=entry.rflags,
            )
        )

    def set_msrs(self, values: Iterable[tuple[int, int]]) -> None:
        """Write MSRs (KVM_SET_MSRS)."""
        self._fd.set_msrs(kvm.MsrEntry(index, value) for index, value in values)

    def reset_fpu(self) -> None:
        """Set the FPU's control words to their reset values."""
        self._fd.set_fpu(attrs.evolve(self._fd.get_fpu(), fcw=0x37F, mxcsr=0x1F80))

    def wire_lint_pins(self) -> None:
        """Set LINT0 to ExtINT where there is a PIC, else leave it masked; LINT1 to NMI."""
        lapic = bytearray(self._fd.get_lapic())
        # KVM itself leaves LINT0 as ExtINT, whether there is a PIC or not.
        lint0 = _EXTINT if self._ioapic is None else _LVT_MASKED
        for offset, wiring in ((_LVT_LINT0, lint0), (_LVT_LINT1, _NMI)):
            value = int.from_bytes(lapic[offset : offset + 4], "little") & ~0x700 | wiring
            lapic[offset : offset + 4] = value.to_bytes(4, "little")
        self._fd.set_lapic(bytes(lapic))


def _split_lines(vm: kvm.VmFd, routes: GsiRoutes) -> "SplitLines":
    from vm_hypervisor._split import SplitLines  # noqa: PLC0415 - few machines have their I/O APIC here

    return SplitLines(vm, routes)


def _split_irqchip(vm: kvm.VmFd) -> None:
    if not vm.check_extension(CAPABILITIES["SPLIT_IRQCHIP"]):
        raise UnsupportedFeatureError(
            "split irqchip: this KVM lacks capability SPLIT_IRQCHIP (121), which came with Linux 4.4; "
            "update the host's kernel or use the in-kernel irqchip"
        )
    vm.enable_cap(CAPABILITIES["SPLIT_IRQCHIP"], [x86_64.IO_APIC_PINS])


if TYPE_CHECKING:  # `make lint` shows by these that the classes are what the Protocols ask for
    _HYPERVISOR: type[Hypervisor] = KvmHypervisor
    _X86_HYPERVISOR: type[x86_64.X86Hypervisor] = KvmHypervisor
    _VM: type[Vm] = KvmVm
    _X86_VM: type[x86_64.X86Vm] = KvmVm
    _VCPU: type[Vcpu] = KvmVcpu
    _X86_VCPU: type[x86_64.X86Vcpu] = KvmVcpu
