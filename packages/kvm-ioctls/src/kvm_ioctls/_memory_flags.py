"""Flags of guest memory: of a slot, and beyond."""

from enum import IntFlag

__all__ = ("GuestMemfdFlags", "MemFlags", "MemoryAttributes")


class MemFlags(IntFlag):
    """Flags of a memory slot."""

    NONE = 0
    LOG_DIRTY_PAGES = 1
    READONLY = 2
    GUEST_MEMFD = 4


class MemoryAttributes(IntFlag):
    """What a range of guest memory is."""

    NONE = 0
    PRIVATE = 8


class GuestMemfdFlags(IntFlag):
    """How a guest_memfd is made, as Cap.GUEST_MEMFD_FLAGS says."""

    NONE = 0
    MMAP = 1
    INIT_SHARED = 2
