"""The kernel's own counters of a VM or vCPU: the binary statistics of KVM_GET_STATS_FD (Linux 5.14)."""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import final

import attrs

from kvm_ioctls._errors import KvmAbiError
from kvm_ioctls._fd import OwnedFd

__all__ = ("Stat", "StatType", "StatUnit", "StatsFd", "parse_stats_descriptors")

_HEADER = struct.Struct("<6I")
_DESC = struct.Struct("<IhHII")
_MOST = 1 << 20  # bytes of descriptors; today's kernels have some 10 KiB


class StatType(IntEnum):
    """How a counter behaves."""

    CUMULATIVE = 0
    INSTANT = 1
    PEAK = 2
    LINEAR_HISTOGRAM = 3
    LOG_HISTOGRAM = 4


class StatUnit(IntEnum):
    """What a counter counts, times base to the power of exponent."""

    NONE = 0
    BYTES = 1
    SECONDS = 2
    CYCLES = 3
    BOOLEAN = 4


@attrs.frozen
class Stat:
    """One counter or histogram (struct kvm_stats_desc).

    Attributes:
        name: The kernel's.
        type: A ``StatType`` number.
        unit: A ``StatUnit`` number.
        base: 10 or 2.
        exponent: The unit is base ** exponent, -9 for nanoseconds.
        size: How many 64-bit numbers: 1, or the buckets of a histogram.
        offset: Of the first in the data block, in bytes.
        bucket_size: Of a linear histogram.
    """

    name: str
    type: int
    unit: int
    base: int
    exponent: int
    size: int
    offset: int
    bucket_size: int


def parse_stats_descriptors(data: bytes, name_size: int, count: int) -> tuple[Stat, ...]:
    """Read `count` descriptors, each followed by a name of `name_size` bytes.

    Raises:
        KvmAbiError: `data` ends before they do, or a field is beyond what is defined.
    """
    step = _DESC.size + name_size
    if len(data) < count * step:
        raise KvmAbiError(f"{count} statistics of {step} bytes do not fit the {len(data)} bytes read")
    found = []
    for at in range(0, count * step, step):
        flags, exponent, size, offset, bucket = _DESC.unpack_from(data, at)
        name = data[at + _DESC.size : at + step].split(b"\0")[0].decode("ascii", "replace")
        base = 2 if flags >> 8 & 0xF else 10
        found.append(Stat(name, flags & 0xF, flags >> 4 & 0xF, base, exponent, size, offset, bucket))
    return tuple(found)


@final
class StatsFd(OwnedFd):
    """The statistics of one VM or vCPU; made by ``get_stats_fd``. It lives as long as it is open.

    Attributes:
        id: What the kernel calls its owner, such as ``kvm-1234``.
        descriptors: Every counter there is; fixed for the life of the owner.
    """

    def __init__(self, fd: int, subject: str) -> None:
        super().__init__(fd, f"statistics of {subject}")
        try:
            self._read_layout()
        except BaseException:
            self.close()
            raise

    def _read_layout(self) -> None:
        header = self._exactly(_HEADER.size, 0)
        _, name_size, count, id_at, desc_at, self._data_at = _HEADER.unpack(header)
        length = count * (_DESC.size + name_size)
        if length > _MOST or name_size > _MOST:
            raise KvmAbiError(f"{self._subject}: {count} descriptors with names of {name_size} bytes")
        self.id = self._exactly(name_size, id_at).split(b"\0")[0].decode("ascii", "replace")
        self.descriptors = parse_stats_descriptors(self._exactly(length, desc_at), name_size, count)
        self._bytes = max((stat.offset + 8 * stat.size for stat in self.descriptors), default=0)

    def _exactly(self, size: int, offset: int) -> bytes:
        data = os.pread(self.fileno(), size, offset)
        if len(data) != size:
            raise KvmAbiError(f"{self._subject}: {len(data)} of {size} bytes at {offset}")
        return data

    def read(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers of every counter by name, all read at once.

        Raises:
            KvmStateError: Closed or forked.
            KvmAbiError: The kernel gave less than its own descriptors say.
        """
        data = self._exactly(self._bytes, self._data_at)
        return {s.name: struct.unpack_from(f"<{s.size}Q", data, s.offset) for s in self.descriptors}
