"""State of arm64 that is no register, laid out as arch/arm64/include/uapi/asm/kvm.h has it."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import attrs

from kvm_ioctls._wire import Wire, array, u8, u32, u64

__all__ = ("Arm64GuestDebug", "Arm64VcpuEvents", "Arm64VcpuInit", "ArmIrqType", "SmcccAction", "arm_irq")


class ArmIrqType(IntEnum):
    """What kind of line ``arm_irq`` names."""

    CPU = 0
    SPI = 1
    PPI = 2


class SmcccAction(IntEnum):
    """What happens to a range of SMCCC calls."""

    HANDLE = 0
    DENY = 1
    FORWARD = 2


def arm_irq(kind: ArmIrqType | int, number: int, vcpu: int = 0) -> int:
    """Return what ``VmFd.set_irq_line`` takes on arm64 (KVM_IRQ_LINE).

    Args:
        kind: Shared, private, or a CPU's own line (0 IRQ, 1 FIQ) when no GIC is in the kernel.
        number: 32..1019 for SPI, 16..31 for PPI.
        vcpu: Whose, but for SPI; 0..4095, beyond 255 with Cap.ARM_IRQ_LINE_LAYOUT_2.

    Raises:
        ValueError: A number does not fit.
    """
    if not 0 <= number <= 0xFFFF or not 0 <= vcpu <= 0xFFF or not 0 <= int(kind) <= 0xF:
        raise ValueError(f"kind={int(kind)}, number={number}, vcpu={vcpu} is no interrupt line of arm64")
    return (vcpu >> 8) << 28 | int(kind) << 24 | (vcpu & 0xFF) << 16 | number


@attrs.define(eq=False, repr=False)
class Arm64VcpuInit(Wire):
    """Target and features of a vCPU (struct kvm_vcpu_init); ``VmFd.arm_preferred_target`` gives the target.

    Feature bits of the first word: 0 POWER_OFF, 1 EL1_32BIT, 2 PSCI_0_2, 3 PMU_V3, 4 SVE,
    5 PTRAUTH_ADDRESS, 6 PTRAUTH_GENERIC, 7 HAS_EL2.
    """

    ABI: ClassVar[str] = "arm64_vcpu_init"
    target: int = u32(5)
    features: tuple[int, ...] = array(7, code="I")


@attrs.define(eq=False, repr=False)
class Arm64VcpuEvents(Wire):
    """Pending SError and external abort (struct kvm_vcpu_events of arm64)."""

    ABI: ClassVar[str] = "arm64_vcpu_events"
    serror_pending: int = u8(abi="exception.serror_pending")
    serror_has_esr: int = u8(abi="exception.serror_has_esr")
    ext_dabt_pending: int = u8(abi="exception.ext_dabt_pending", gap=5)
    serror_esr: int = u64(abi="exception.serror_esr", gap=48)


@attrs.define(eq=False, repr=False)
class Arm64GuestDebug(Wire):
    """What stops the guest (struct kvm_guest_debug of arm64): control, breakpoints, watchpoints.

    Control bits: 1 ENABLE, 2 SINGLESTEP, 1<<16 USE_SW_BP, 1<<17 USE_HW.
    """

    ABI: ClassVar[str] = "arm64_guest_debug"
    control: int = u32(gap=4)
    dbg_bcr: tuple[int, ...] = array(16)
    dbg_bvr: tuple[int, ...] = array(16)
    dbg_wcr: tuple[int, ...] = array(16)
    dbg_wvr: tuple[int, ...] = array(16)
