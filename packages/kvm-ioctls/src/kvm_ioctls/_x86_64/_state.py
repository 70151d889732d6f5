"""State of x86-64 that a machine starts with, laid out as arch/x86/include/uapi/asm/kvm.h has it."""

# ruff: noqa: RUF009 - nested() yields an attrs field with a factory, no shared default

from __future__ import annotations

from typing import ClassVar

import attrs

from kvm_ioctls._wire import Wire, array, nested, raw, u8, u16, u32, u64

__all__ = (
    "CpuidEntry",
    "DescriptorTable",
    "Fpu",
    "MsrEntry",
    "Regs",
    "Segment",
    "Sregs",
)


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
class DescriptorTable(Wire):
    """GDTR or IDTR (struct kvm_dtable); limit is the last valid byte."""

    ABI: ClassVar[str] = "dtable"
    base: int = u64()
    limit: int = u16(gap=6)


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
class MsrEntry(Wire):
    """One model specific register and its value (struct kvm_msr_entry)."""

    ABI: ClassVar[str] = "msr_entry"
    index: int = u32(gap=4)
    data: int = u64()


@attrs.define(eq=False, repr=False)
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
