"""Register ids of KVM_GET_ONE_REG: built and read (Documentation/virt/kvm/api.rst 4.68)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("RiscvRegType", "arm64_core_reg", "arm64_sys_reg", "reg_size", "riscv64_reg")

_ARM64 = 0x6000_0000_0000_0000
_RISCV = 0x8000_0000_0000_0000
_SIZE_SHIFT = 52
_U64 = 3 << _SIZE_SHIFT
_MAX_SIZE_LOG2 = 8
_SYSREG_FIELDS = (("op0", 14, 3), ("op1", 11, 7), ("crn", 7, 15), ("crm", 3, 15), ("op2", 0, 7))


class RiscvRegType(IntEnum):
    """The files of registers that a riscv64 vCPU has."""

    CONFIG = 1
    CORE = 2
    CSR = 3
    TIMER = 4
    FP_F = 5
    FP_D = 6
    ISA_EXT = 7
    SBI_EXT = 8
    VECTOR = 9
    SBI_STATE = 10


def reg_size(reg_id: int) -> int:
    """Return the bytes of a register: a power of two from 1 to 256, which its id tells.

    Raises:
        ValueError: The id's size field is none of these.
    """
    log2 = reg_id >> _SIZE_SHIFT & 0xF
    if log2 > _MAX_SIZE_LOG2:
        raise ValueError(f"register id {reg_id:#x} claims 2^{log2} bytes, no register has more than 256")
    return 1 << log2


def arm64_sys_reg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Return the id of an arm64 system register by its encoding (ARM64_SYS_REG).

    Raises:
        ValueError: A field does not fit: op0 2 bits, op1 and op2 3, crn and crm 4.
    """
    reg = _ARM64 | _U64 | 0x13 << 16
    for (name, shift, top), value in zip(_SYSREG_FIELDS, (op0, op1, crn, crm, op2), strict=True):
        if not 0 <= value <= top:
            raise ValueError(f"{name}={value} is not in 0..{top}")
        reg |= value << shift
    return reg


def arm64_core_reg(offset: int, size: int = 8) -> int:
    """Return the id of an arm64 core register by its place in the kernel's struct kvm_regs.

    Args:
        offset: In bytes, a multiple of 4: X0..X30 are at 0, 8, …, 240, SP 248, PC 256, PSTATE 264.
        size: In bytes: 4, 8, or 16 for a vector register.

    Raises:
        ValueError: Neither is possible.
    """
    if offset % 4 or not 0 <= offset < 1 << 18 or size not in (4, 8, 16):
        raise ValueError(f"offset={offset:#x}, size={size} is no core register")
    return _ARM64 | (size.bit_length() - 1) << _SIZE_SHIFT | 0x10 << 16 | offset // 4


def riscv64_reg(kind: RiscvRegType | int, index: int, size: int = 8) -> int:
    """Return the id of a riscv64 register.

    Args:
        kind: Its file.
        index: Its number there, with the subtype in bits 16 to 23.
        size: In bytes: 4, 8, or more for vectors.

    Raises:
        ValueError: The file has more than 8 bits, the index more than 24, or the size is no power of two up
            to 256.
    """
    if not 0 <= int(kind) < 1 << 8:
        raise ValueError(f"kind={int(kind)} is no file of registers: not in 0..255")
    if not 0 <= index < 1 << 24 or size not in (1 << n for n in range(_MAX_SIZE_LOG2 + 1)):
        raise ValueError(f"index={index:#x}, size={size} is no register of riscv64")
    return _RISCV | (size.bit_length() - 1) << _SIZE_SHIFT | int(kind) << 24 | index
