"""What a guest may do with MSRs and performance events."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntFlag

import attrs

from kvm_ioctls._ffi import CData, ffi
from kvm_ioctls._wire import packed

__all__ = ("MsrExits", "MsrFilterFlags", "MsrFilterRange", "PmuEventFilter", "pack_msr_filter")

_MOST_RANGES = 16
_MOST_BITMAP = 0x600


class MsrExits(IntFlag):
    """Which accesses to MSRs exit: the argument of Cap.X86_USER_SPACE_MSR, and the reason of an exit."""

    INVAL = 1
    UNKNOWN = 2
    FILTER = 4


class MsrFilterFlags(IntFlag):
    """What a range of the filter governs."""

    READ = 1
    WRITE = 2


@attrs.frozen
class MsrFilterRange:
    """MSRs from `base`: bit n of the bitmap, least significant first, allows base + n.

    Attributes:
        base: The first MSR.
        count: How many, 1..12288.
        bitmap: At least `count` bits.
        flags: Which accesses.

    Raises:
        ValueError: A number is out of range, or the bitmap is too short.
    """

    base: int
    count: int
    bitmap: bytes
    flags: MsrFilterFlags = MsrFilterFlags.READ | MsrFilterFlags.WRITE

    def __attrs_post_init__(self) -> None:
        if not 0 <= int(self.flags) < 1 << 32:
            raise ValueError(f"flags={int(self.flags):#x} does not fit 32 bits")
        if not 0 <= self.base < 1 << 32 or not 0 < self.count <= 8 * _MOST_BITMAP:
            raise ValueError(
                f"base={self.base:#x}, count={self.count} is no range of 1..{8 * _MOST_BITMAP} MSRs"
            )
        if len(self.bitmap) < -(-self.count // 8):
            raise ValueError(f"the bitmap has {len(self.bitmap)} bytes, {self.count} MSRs need more")


def pack_msr_filter(
    ranges: Sequence[MsrFilterRange], *, default_deny: bool
) -> tuple[bytearray, Sequence[CData]]:
    """Return a struct kvm_msr_filter and the bitmaps that it points to, which must outlive its use.

    Raises:
        ValueError: More than 16 ranges.
    """
    if len(ranges) > _MOST_RANGES:
        raise ValueError(f"{len(ranges)} ranges of MSRs, the kernel takes at most {_MOST_RANGES}")
    # The kernel reads whole 8-byte words.
    maps = [ffi.new("uint8_t[]", r.bitmap.ljust(-(-len(r.bitmap) // 8) * 8, b"\0")) for r in ranges]
    parts = [struct.pack("<II", int(default_deny), 0)]
    for item, bitmap in zip(ranges, maps, strict=True):
        # SAFETY: only the number is kept; the caller holds `maps` until the kernel has copied them.
        address = int(ffi.cast("uintptr_t", bitmap))
        parts.append(struct.pack("<IIIIQ", int(item.flags), item.count, item.base, 0, address))
    return bytearray(b"".join(parts).ljust(392, b"\0")), maps


@attrs.frozen
class PmuEventFilter:
    """Which performance events a guest may count (struct kvm_pmu_event_filter).

    Attributes:
        events: Event selects with unit masks; masked entries when `masked`. At most 300.
        allow: Allow these and deny the rest, or the reverse.
        fixed_counters: A bit per fixed counter, with the same meaning.
        masked: Entries match by mask (Cap.PMU_EVENT_MASKED_EVENTS).
    """

    events: tuple[int, ...] = ()
    allow: bool = False
    fixed_counters: int = 0
    masked: bool = False

    def pack(self) -> bytearray:
        """Return the kernel's form.

        Raises:
            ValueError: A number does not fit.
        """
        head = (0 if self.allow else 1, len(self.events), self.fixed_counters, int(self.masked))
        return packed(f"{self}", f"<4I16x{len(self.events)}Q", *head, *self.events)
