"""The guest memory of trials: small enough to compare, with every edge that addresses can have."""

import functools
import os

from vmm_memory import FileOffset, GuestMemoryMmap, GuestRegionMmap

RINGS = 0x4000  # rings from here on
DATA, DATA_ROOM = 0x5000, 0x1000  # buffers of sound chains
ARENA = (0x6000, 0x1000)  # indirect tables of sound chains
BORDER = 0x8000  # two regions meet
TABLE = 0x9000  # indirect tables of hostile chains
READ_ONLY, READ_ONLY_ROOM = 0xC000, 0x1000
HUGE = 1 << 32  # 4 GiB, so that sums of lengths can pass 2^32
TOP = (1 << 64) - 0x1000  # up to the last address there is
WATCHED = ((RINGS, READ_ONLY - RINGS), (TOP, 0x1000))
LARGEST = 16

EDGES = (0, RINGS, BORDER, READ_ONLY, READ_ONLY + READ_ONLY_ROOM, HUGE, 2 * HUGE, TOP, 1 << 64)


def trial_memory(*, huge: bool = True) -> GuestMemoryMmap:
    """Fresh zeroed guest memory with dirty tracking, as trials need it.

    0x4000-0x7fff and 0x8000-0xbfff are two regions that meet, 0xc000-0xcfff is read-only; 4 GiB from 2^32 on
    and one page below 2^64 are for lengths and addresses at their limits. All is sparse: a test that writes a
    gigabyte pays for it.

    Args:
        huge: With the 4 GiB.
    """
    make = GuestRegionMmap.anonymous
    written = [make(RINGS, BORDER - RINGS, dirty=True), make(BORDER, READ_ONLY - BORDER, dirty=True)]
    more = [_huge()] if huge else []
    return GuestMemoryMmap([*written, _read_only(), *more, make(TOP, 0x1000, dirty=True)])


@functools.cache
def _read_only() -> GuestRegionMmap:
    fd = os.memfd_create("trial-read-only", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, READ_ONLY_ROOM)
        return GuestRegionMmap.from_file(READ_ONLY, READ_ONLY_ROOM, FileOffset(fd), read_only=True)
    finally:
        os.close(fd)


@functools.cache
def _huge() -> GuestRegionMmap:
    return GuestRegionMmap.memfd(HUGE, HUGE)
