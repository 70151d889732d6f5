"""Flags of guest memory beyond those of a slot."""

from enum import IntFlag

__all__ = ("GuestMemfdFlags", "MemoryAttributes")


class MemoryAttributes(IntFlag):
    """What a range of guest memory is."""

    NONE = 0
    PRIVATE = 8


class GuestMemfdFlags(IntFlag):
    """How a guest_memfd is made, as Cap.GUEST_MEMFD_FLAGS says."""

    NONE = 0
    MMAP = 1
    INIT_SHARED = 2
