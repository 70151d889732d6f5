"""vCPU and VM state of x86-64, laid out as arch/x86/include/uapi/asm/kvm.h has it."""

# ruff: noqa: RUF009 - nested() yields an attrs field with a factory, no shared default

from __future__ import annotations

from typing import ClassVar

import attrs

from kvm_ioctls._wire import Wire, array, nested, raw, u8, u16, u32, u64

__all__ = (
    "ClockData",
    "CpuidEntry",
    "DebugRegs",
    "DescriptorTable",
    "Fpu",
    "GuestDebug",
    "MsrEntry",
    "Regs",
    "Segment",
    "Sregs",
    "Sregs2",
    "Translation",
    "VcpuEvents",
    "Xcr",
)


@attrs.define
class Regs(Wire):
    """General purpose registers (struct kvm_regs); bit 1 of rflags must be set."""

    ABI: ClassVar[str] = "regs"
    rax: int = u64()
    rbx: int = u64()
    rcx: int = u64()
    rdx: int = u64()
    rsi: int = u64()
    rdi: int = u64()
    rsp: int = u64()
    rbp: int = u64()
    r8: int = u64()
    r9: int = u64()
    r10: int = u64()
    r11: int = u64()
    r12: int = u64()
    r13: int = u64()
    r14: int = u64()
    r15: int = u64()
    rip: int = u64()
    rflags: int = u64(2)


@attrs.define
class Segment(Wire):
    """A segment register with its hidden part (struct kvm_segment); limit in bytes."""

    ABI: ClassVar[str] = "segment"
    base: int = u64()
    limit: int = u32()
    selector: int = u16()
    type: int = u8()
    present: int = u8()
    dpl: int = u8()
    db: int = u8()
    s: int = u8()
    l: int = u8()  # noqa: E741 - the manual's and the kernel's name of the bit
    g: int = u8()
    avl: int = u8()
    unusable: int = u8(gap=1)


@attrs.define
class DescriptorTable(Wire):
    """GDTR or IDTR (struct kvm_dtable); limit is the last valid byte."""

    ABI: ClassVar[str] = "dtable"
    base: int = u64()
    limit: int = u16(gap=6)


@attrs.define
class Sregs(Wire):
    """Segment, table and control registers (struct kvm_sregs)."""

    ABI: ClassVar[str] = "sregs"
    cs: Segment = nested(Segment)
    ds: Segment = nested(Segment)
    es: Segment = nested(Segment)
    fs: Segment = nested(Segment)
    gs: Segment = nested(Segment)
    ss: Segment = nested(Segment)
    tr: Segment = nested(Segment)
    ldt: Segment = nested(Segment)
    gdt: DescriptorTable = nested(DescriptorTable)
    idt: DescriptorTable = nested(DescriptorTable)
    cr0: int = u64()
    cr2: int = u64()
    cr3: int = u64()
    cr4: int = u64()
    cr8: int = u64()
    efer: int = u64()
    apic_base: int = u64()
    interrupt_bitmap: tuple[int, ...] = array(4)


@attrs.define
class Sregs2(Wire):
    """As Sregs, with the PAE page-directory pointers instead of pending interrupts (struct kvm_sregs2)."""

    ABI: ClassVar[str] = "sregs2"
    cs: Segment = nested(Segment)
    ds: Segment = nested(Segment)
    es: Segment = nested(Segment)
    fs: Segment = nested(Segment)
    gs: Segment = nested(Segment)
    ss: Segment = nested(Segment)
    tr: Segment = nested(Segment)
    ldt: Segment = nested(Segment)
    gdt: DescriptorTable = nested(DescriptorTable)
    idt: DescriptorTable = nested(DescriptorTable)
    cr0: int = u64()
    cr2: int = u64()
    cr3: int = u64()
    cr4: int = u64()
    cr8: int = u64()
    efer: int = u64()
    apic_base: int = u64()
    flags: int = u64()
    pdptrs: tuple[int, ...] = array(4)


@attrs.define
class Fpu(Wire):
    """x87 and SSE state (struct kvm_fpu): eight 16-byte x87 and sixteen 16-byte XMM registers."""

    ABI: ClassVar[str] = "fpu"
    fpr: bytes = raw(128)
    fcw: int = u16(0x37F)
    fsw: int = u16()
    ftwx: int = u8(gap=1)
    last_opcode: int = u16()
    last_ip: int = u64()
    last_dp: int = u64()
    xmm: bytes = raw(256)
    mxcsr: int = u32(0x1F80, gap=4)


@attrs.define
class MsrEntry(Wire):
    """One model specific register and its value (struct kvm_msr_entry)."""

    ABI: ClassVar[str] = "msr_entry"
    index: int = u32(gap=4)
    data: int = u64()


@attrs.define
class CpuidEntry(Wire):
    """One CPUID leaf (struct kvm_cpuid_entry2); bit 0 of flags says that `index` (ECX) matters."""

    ABI: ClassVar[str] = "cpuid_entry2"
    function: int = u32()
    index: int = u32()
    flags: int = u32()
    eax: int = u32()
    ebx: int = u32()
    ecx: int = u32()
    edx: int = u32(gap=12)


@attrs.define
class Xcr(Wire):
    """One extended control register (struct kvm_xcr); number 0 is XCR0."""

    ABI: ClassVar[str] = "xcr"
    xcr: int = u32(gap=4)
    value: int = u64()


@attrs.define
class DebugRegs(Wire):
    """Hardware breakpoints (struct kvm_debugregs)."""

    ABI: ClassVar[str] = "debugregs"
    db: tuple[int, ...] = array(4)
    dr6: int = u64(0xFFFF0FF0)
    dr7: int = u64(0x400)
    flags: int = u64(gap=72)


@attrs.define
class GuestDebug(Wire):
    """What stops the guest (struct kvm_guest_debug).

    Control bits: 1 ENABLE, 2 SINGLESTEP, 1<<16 USE_SW_BP, 1<<17 USE_HW_BP.
    """

    ABI: ClassVar[str] = "guest_debug"
    control: int = u32(gap=4)
    debugreg: tuple[int, ...] = array(8)


@attrs.define
class VcpuEvents(Wire):
    """Pending and injected events (struct kvm_vcpu_events)."""

    ABI: ClassVar[str] = "vcpu_events"
    exception_injected: int = u8(abi="exception.injected")
    exception_nr: int = u8(abi="exception.nr")
    exception_has_error_code: int = u8(abi="exception.has_error_code")
    exception_pending: int = u8(abi="exception.pending")
    exception_error_code: int = u32(abi="exception.error_code")
    interrupt_injected: int = u8(abi="interrupt.injected")
    interrupt_nr: int = u8(abi="interrupt.nr")
    interrupt_soft: int = u8(abi="interrupt.soft")
    interrupt_shadow: int = u8(abi="interrupt.shadow")
    nmi_injected: int = u8(abi="nmi.injected")
    nmi_pending: int = u8(abi="nmi.pending")
    nmi_masked: int = u8(abi="nmi.masked", gap=1)
    sipi_vector: int = u32()
    flags: int = u32()
    smi_smm: int = u8(abi="smi.smm")
    smi_pending: int = u8(abi="smi.pending")
    smi_inside_nmi: int = u8(abi="smi.smm_inside_nmi")
    smi_latched_init: int = u8(abi="smi.latched_init")
    triple_fault_pending: int = u8(abi="triple_fault.pending", gap=26)
    exception_has_payload: int = u8()
    exception_payload: int = u64()


@attrs.define
class ClockData(Wire):
    """The VM's kvmclock in ns (struct kvm_clock_data).

    Flags: 2 TSC_STABLE, 4 realtime is valid, 8 host_tsc is valid.
    """

    ABI: ClassVar[str] = "clock_data"
    clock: int = u64()
    flags: int = u32(gap=4)
    realtime: int = u64()
    host_tsc: int = u64(gap=16)


@attrs.define
class Translation(Wire):
    """A guest virtual address and where it leads (struct kvm_translation)."""

    ABI: ClassVar[str] = "translation"
    linear_address: int = u64()
    physical_address: int = u64()
    valid: int = u8()
    writeable: int = u8()
    usermode: int = u8(gap=5)
