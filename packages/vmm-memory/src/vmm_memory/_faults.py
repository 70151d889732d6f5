"""From the -errno of an access to the exception that explains it; off the hot path."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from ._access import AccessMap
from ._errors import (
    ForkedError,
    GuestMemoryError,
    InvalidGuestAddressError,
    MisalignedAccessError,
    PartialBufferError,
    ReadOnlyRegionError,
)

__all__ = ("ORDERS", "access_error", "number_error", "typed_error", "unmapped_error")

_LIMIT: Final = 1 << 64
ORDERS: Final = "memory order: loads take RELAXED, ACQUIRE or SEQ_CST, stores RELAXED, RELEASE or SEQ_CST"
"""The message of a ValueError for an order that the access cannot have."""


def access_error(table: AccessMap, rc: int, addr: int, size: int) -> GuestMemoryError:
    """The exception for a copy, check or slice that C (or its twin) refused with rc."""
    if table.emptied:
        return ForkedError(table.owner_pid)
    if rc == -errno.EACCES:
        return ReadOnlyRegionError(addr, size, "touches a read-only region; nothing was written")
    if rc == -errno.ERANGE:
        return InvalidGuestAddressError(addr, size, "wraps around 2^64")
    mapped = [(row.base, row.size) for row in table.rows]
    return unmapped_error(mapped, addr, size)


def unmapped_error(mapped: Sequence[tuple[int, int]], addr: int, size: int) -> InvalidGuestAddressError:
    """Says how far memory reaches from addr on; `mapped` are sorted (base, size)."""
    at = addr
    for base, length in mapped:
        if base <= at < base + length:
            at = base + length
    if at == addr:
        top = f"highest mapped byte: {sum(mapped[-1]) - 1:#x}" if mapped else "the map is empty"
        return InvalidGuestAddressError(addr, size, f"{addr:#x} is not mapped ({top})")
    return PartialBufferError(addr, size, at - addr)


def typed_error(rc: int, addr: int, size: int, value: int) -> Exception:
    """The exception for a typed access whose numbers C refused with rc, -EDOM or -EINVAL."""
    if size not in {1, 2, 4, 8}:
        return ValueError(f"size is {size}, must be 1, 2, 4 or 8")
    if rc == -errno.EDOM:
        return ValueError(f"value is {value:#x}, must be in 0 .. 2^{8 * size} - 1 for {size} bytes")
    if addr % size:
        return MisalignedAccessError(addr, size, f"address must be a multiple of {size}")
    return ValueError(ORDERS)


def number_error(addr: int, size: int, value: int = 0) -> Exception:
    """The exception for numbers that do not even fit C's types."""
    if not 0 <= addr < _LIMIT:
        return InvalidGuestAddressError(addr, size, "address must be in 0 .. 2^64 - 1")
    if size < 0:
        return ValueError(f"size is {size}, must be 0 or more")
    if size >= _LIMIT:
        return InvalidGuestAddressError(addr, size, "wraps around 2^64")
    if size not in {1, 2, 4, 8}:
        return ValueError(f"size is {size}, must be 1, 2, 4 or 8")
    return ValueError(f"value is {value:#x}, must be in 0 .. 2^{8 * size} - 1 for {size} bytes")
