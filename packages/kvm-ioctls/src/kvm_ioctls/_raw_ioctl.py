"""Any ioctl by its number, for what has no method here."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ("RawIoctl",)

_SIZE_SHIFT, _SIZE_MASK = 16, 0x3FFF
_LAST_NUMBER = 0xFFFF_FFFF


class RawIoctl(ABC):
    """Mixed into Kvm, VmFd, VcpuFd and DeviceFd."""

    @abstractmethod
    def _ioctl(self, number: int, data: bytearray) -> int: ...

    @abstractmethod
    def _ioctl_value(self, number: int, value: int = 0) -> int: ...

    def raw_ioctl(self, number: int, argument: bytearray | int = 0) -> int:
        """Make an ioctl as it is; return what the kernel answers.

        Args:
            number: As the kernel's header encodes it, size included; 32 bits.
            argument: A struct, changed in place, or the 64 bits that some take instead. Addresses inside it
                must be valid, and a struct that ends in an array as long as it says itself.

        Raises:
            ValueError: A number does not fit, or the struct is shorter than `number` encodes.
            KvmOSError: The kernel refused.
            KvmStateError: Closed, forked, or (a vCPU) in use by another thread.
        """
        if not 0 <= number <= _LAST_NUMBER:
            raise ValueError(f"number={number:#x} is no ioctl: not in 0..{_LAST_NUMBER:#x}")
        if isinstance(argument, int):
            return self._ioctl_value(number, argument)
        size = number >> _SIZE_SHIFT & _SIZE_MASK
        if len(argument) < size:
            raise ValueError(f"ioctl {number:#x} takes {size} bytes, not {len(argument)}")
        return self._ioctl(number, argument)
