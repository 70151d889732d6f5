"""Names for numbers and buffers that appear in signatures."""

from __future__ import annotations

import enum
from typing import Final, NewType, TypeAlias

import attrs

from ._errors import InvalidRegionError

__all__ = (
    "LOAD_ORDERS",
    "STORE_ORDERS",
    "FileOffset",
    "GuestAddress",
    "MemoryOrder",
    "ReadableBuffer",
    "WritableBuffer",
)

GuestAddress = NewType("GuestAddress", int)
"""A guest physical address (or IOVA, behind an IOMMU), 0 .. 2^64 - 1."""

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview
"""What can be written from; any C-contiguous buffer works at run time."""

WritableBuffer: TypeAlias = bytearray | memoryview
"""What can be read into; any writable C-contiguous buffer works at run time."""


class MemoryOrder(enum.IntEnum):
    """Order of a load or store against the accesses around it (C11 5.1.2.4); values of gcc's `__ATOMIC_*`."""

    RELAXED = 0
    ACQUIRE = 2
    RELEASE = 3
    SEQ_CST = 5


def _not_negative(_: object, field: attrs.Attribute[int], value: int) -> None:
    if value < 0:
        raise InvalidRegionError(f"FileOffset.{field.name} is {value}, must be 0 or more")


LOAD_ORDERS: Final = frozenset({MemoryOrder.RELAXED, MemoryOrder.ACQUIRE, MemoryOrder.SEQ_CST})
"""What a load may have."""
STORE_ORDERS: Final = frozenset({MemoryOrder.RELAXED, MemoryOrder.RELEASE, MemoryOrder.SEQ_CST})
"""What a store may have."""


@attrs.frozen
class FileOffset:
    """Where in a file a region's first byte lies.

    Attributes:
        fd: An open file descriptor; who made the FileOffset owns it (a region hands out its own duplicate).
        offset: Bytes from the file's start, a multiple of the page size for a mapping.
    """

    fd: int = attrs.field(validator=_not_negative)
    offset: int = attrs.field(default=0, validator=_not_negative)
