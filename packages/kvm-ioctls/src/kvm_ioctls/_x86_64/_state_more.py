"""Further state of x86-64, of vCPUs and VMs, laid out as arch/x86/include/uapi/asm/kvm.h has it.

What a snapshot or a debugger needs and a machine starts without.
"""

# ruff: noqa: RUF009 - nested() yields an attrs field with a factory, no shared default

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import attrs

from kvm_ioctls._wire import Wire, array, nested, u8, u32, u64
from kvm_ioctls._x86_64._state import DescriptorTable, Segment

__all__ = (
    "ClockData",
    "DebugRegs",
    "GuestDebug",
    "IrqchipId",
    "Sregs2",
    "Translation",
    "VcpuEvents",
    "Xcr",
)


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
class Xcr(Wire):
    """One extended control register (struct kvm_xcr); number 0 is XCR0."""

    ABI: ClassVar[str] = "xcr"
    xcr: int = u32(gap=4)
    value: int = u64()


@attrs.define(eq=False, repr=False)
class DebugRegs(Wire):
    """Hardware breakpoints (struct kvm_debugregs)."""

    ABI: ClassVar[str] = "debugregs"
    db: tuple[int, ...] = array(4)
    dr6: int = u64(0xFFFF0FF0)
    dr7: int = u64(0x400)
    flags: int = u64(gap=72)


@attrs.define(eq=False, repr=False)
class GuestDebug(Wire):
    """What stops the guest (struct kvm_guest_debug).

    Control bits: 1 ENABLE, 2 SINGLESTEP, 1<<16 USE_SW_BP, 1<<17 USE_HW_BP.
    """

    ABI: ClassVar[str] = "guest_debug"
    control: int = u32(gap=4)
    debugreg: tuple[int, ...] = array(8)


@attrs.define(eq=False, repr=False)
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


@attrs.define(eq=False, repr=False)
class ClockData(Wire):
    """The VM's kvmclock in ns (struct kvm_clock_data).

    Flags: 2 TSC_STABLE, 4 realtime is valid, 8 host_tsc is valid.
    """

    ABI: ClassVar[str] = "clock_data"
    clock: int = u64()
    flags: int = u32(gap=4)
    realtime: int = u64()
    host_tsc: int = u64(gap=16)


@attrs.define(eq=False, repr=False)
class Translation(Wire):
    """A guest virtual address and where it leads (struct kvm_translation)."""

    ABI: ClassVar[str] = "translation"
    linear_address: int = u64()
    physical_address: int = u64()
    valid: int = u8()
    writeable: int = u8()
    usermode: int = u8(gap=5)


class IrqchipId(IntEnum):
    """The in-kernel interrupt controllers."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2
