"""Any ioctl by its number, for what has no method here, and lists that say how long they are."""

from __future__ import annotations

import errno
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from kvm_ioctls._errors import KvmOSError

__all__ = ("RawIoctl", "read_list")

_SIZE_SHIFT, _SIZE_MASK = 16, 0x3FFF
_LIKELY = 256  # numbers; a list that is longer costs a second call


def read_list(ioctl: Callable[[int, bytearray], int], number: int, word: Literal["I", "Q"]) -> list[int]:
    """Return the numbers of an ioctl that fills in a count and as many numbers, all of `word`'s width.

    Raises:
        KvmOSError: The kernel refused for another reason than room.
    """
    size, room = struct.calcsize(word), _LIKELY
    while True:
        data = bytearray(size * (1 + room))
        struct.pack_into(f"<{word}", data, 0, room)
        try:
            ioctl(number, data)
        except KvmOSError as err:
            needed = struct.unpack_from(f"<{word}", data)[0]
            if err.errno != errno.E2BIG or needed <= room:
                raise
            room = needed
            continue
        return list(struct.unpack_from(f"<{struct.unpack_from(f'<{word}', data)[0]}{word}", data, size))


class RawIoctl(ABC):
    """Mixed into Kvm, VmFd, VcpuFd and DeviceFd."""

    @abstractmethod
    def _ioctl(self, number: int, data: bytearray) -> int: ...

    @abstractmethod
    def _ioctl_value(self, number: int, value: int = 0) -> int: ...

    def raw_ioctl(self, number: int, argument: bytearray | int = 0) -> int:
        """Make an ioctl as it is; return what the kernel answers.

        Args:
            number: As the kernel's header encodes it, size included.
            argument: A struct, changed in place, or the number that some take instead. Addresses inside it
                must be valid, and a struct that ends in an array as long as it says itself.

        Raises:
            ValueError: The struct is shorter than the number encodes.
            KvmOSError: The kernel refused.
            KvmStateError: Closed, forked, or (a vCPU) in use by another thread.
        """
        if isinstance(argument, int):
            return self._ioctl_value(number, argument)
        size = number >> _SIZE_SHIFT & _SIZE_MASK
        if len(argument) < size:
            raise ValueError(f"ioctl {number:#x} takes {size} bytes, not {len(argument)}")
        return self._ioctl(number, argument)
