"""What a vCPU of every architecture has: registers by id, attributes, statistics, what it waits for."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TypeVar

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._device import DeviceAttrs
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls._number_list import read_list
from kvm_ioctls._wire import Wire, check_u64, pack_enable_cap, packed

__all__ = ("VcpuState",)

W = TypeVar("W", bound=Wire)
_KERNEL_SIGSET = 8  # bytes of the kernel's signal set on all three architectures


class VcpuState(DeviceAttrs):
    """Mixed into VcpuFd.

    Every method raises KvmOSError when the kernel refuses and KvmStateError when the vCPU is closed,
    forked or in use by another thread; a refused setter changes nothing.
    """

    _subject: str

    @abstractmethod
    def _fail(self, ret: int, what: int | str) -> None: ...

    def _get(self, number: int, kind: type[W]) -> W:
        data = bytearray(kind.wire_size())
        self._ioctl(number, data)
        return kind.unpack(data)

    def get_mp_state(self) -> kvm.MpState:
        """Return what the vCPU waits for (KVM_GET_MP_STATE)."""
        data = bytearray(4)
        self._ioctl(lib.KX_GET_MP_STATE, data)
        return kvm.MpState(struct.unpack("<I", data)[0])

    def set_mp_state(self, state: kvm.MpState) -> None:
        """Set what the vCPU waits for (KVM_SET_MP_STATE).

        Raises:
            ValueError: A number that does not fit 32 bits.
        """
        self._ioctl(lib.KX_SET_MP_STATE, packed("state", "<I", state))

    def enable_cap(self, cap: kvm.Cap | int, args: Sequence[int] = (), *, flags: int = 0) -> None:
        """Switch a capability of the vCPU on (KVM_ENABLE_CAP).

        Raises:
            ValueError: More than four arguments, or a number does not fit: `cap` and `flags` 32 bits, the
                arguments 64.
        """
        self._ioctl(lib.KX_ENABLE_CAP, pack_enable_cap(int(cap), args, flags))

    def get_reg_list(self) -> list[int]:
        """Return the id of every register (KVM_GET_REG_LIST); ENOTTY on x86-64 before Linux 6.18."""
        return read_list(self._ioctl, lib.KX_GET_REG_LIST, "Q")

    def _one_reg(self, number: int, reg_id: int, data: bytearray) -> None:
        # SAFETY: the kernel moves as many bytes as the id says, and `data` has them; it lives in the
        # caller's frame.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(data)))
        self._ioctl(number, packed("register", "<QQ", reg_id, address))

    def get_one_reg(self, reg_id: int) -> int:
        """Return a register as an unsigned number of ``reg_size(reg_id)`` bytes (KVM_GET_ONE_REG).

        Raises:
            ValueError: The id's size is impossible, or it does not fit 64 bits.
        """
        from kvm_ioctls._reg_id import reg_size  # noqa: PLC0415 - few need it

        data = bytearray(reg_size(reg_id))
        self._one_reg(lib.KX_GET_ONE_REG, reg_id, data)
        return int.from_bytes(data, "little")

    def set_one_reg(self, reg_id: int, value: int) -> None:
        """Set a register (KVM_SET_ONE_REG).

        Raises:
            ValueError: The value does not fit the register, or the id's size is impossible.
        """
        from kvm_ioctls._reg_id import reg_size  # noqa: PLC0415 - few need it

        size = reg_size(reg_id)
        if not 0 <= value < 1 << (8 * size):
            raise ValueError(f"value={value:#x} does not fit the {size} bytes of register {reg_id:#x}")
        self._one_reg(lib.KX_SET_ONE_REG, reg_id, bytearray(value.to_bytes(size, "little")))

    def set_signal_mask(self, blocked: Iterable[int] | None) -> None:
        """Set the signals that wait while the guest runs (KVM_SET_SIGNAL_MASK); None: the thread's own.

        The kick is not lost while ``KICK_SIGNAL`` is blocked, but may then wait for the next exit.

        Raises:
            ValueError: A number is no signal.
        """
        if blocked is None:
            self._ioctl_value(lib.KX_SET_SIGNAL_MASK)
            return
        import signal  # noqa: PLC0415 - costs a millisecond, and few need it

        mask = 0
        for number in blocked:
            if not 1 <= number < signal.NSIG:
                raise ValueError(f"signal {number} is not in 1..{signal.NSIG - 1}")
            mask |= 1 << (number - 1)
        self._ioctl(lib.KX_SET_SIGNAL_MASK, bytearray(struct.pack("<IQ", _KERNEL_SIGSET, mask)))

    def pre_fault_memory(self, gpa: int, size: int) -> int:
        """Map guest memory ahead of its use (KVM_PRE_FAULT_MEMORY, Cap.PRE_FAULT_MEMORY).

        Args:
            gpa: Guest physical start, page aligned.
            size: Bytes, page aligned.

        Returns:
            Bytes that are left when a signal came in between; 0 when all is mapped.

        Raises:
            ValueError: A number does not fit 64 bits.
        """
        check_u64(gpa=gpa, size=size)
        data = bytearray(struct.pack("<QQQ40x", gpa, size, 0))
        self._ioctl(lib.KX_PRE_FAULT_MEMORY, data)
        left: int = struct.unpack_from("<Q", data, 8)[0]
        return left

    def get_stats_fd(self) -> kvm.StatsFd:
        """Open the kernel's statistics of this vCPU (KVM_GET_STATS_FD, Cap.BINARY_STATS_FD)."""
        return kvm.StatsFd(self._ioctl_value(lib.KX_GET_STATS_FD), self._subject)
