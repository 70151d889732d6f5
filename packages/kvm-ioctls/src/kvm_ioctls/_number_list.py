"""Lists of numbers that say how long they are: of register ids, of MSRs."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Literal

from kvm_ioctls._errors import KvmOSError

__all__ = ("read_list",)

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
