"""Records of every return of KVM_RUN, as the C loop writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

__all__ = ("TRACED_EXIT_BYTES", "RunEnd", "TracedExit", "traced_exits")

# struct kvmx_traced of csrc/core.h
_RECORD = struct.Struct("<QQQIIBBB5x")
TRACED_EXIT_BYTES = _RECORD.size
"""Bytes of a record."""


class RunEnd(IntEnum):
    """How a KVM_RUN ended: EXIT and NATIVE are exits, the others are what ``RunStats`` counts beside them."""

    EXIT = 0
    NATIVE = 1
    KICK = 2
    SIGNAL = 3
    WAIT = 4


class TracedExit(NamedTuple):
    """One return of KVM_RUN; no attrs class, because there are a million of them.

    Attributes:
        entered_ns: Nanoseconds of CLOCK_MONOTONIC when the guest was entered.
        left_ns: When KVM_RUN was back.
        addr: Port or address; of another exit the first word of its payload (an MSR, a vector), or 0.
        reason: KVM_EXIT_* number of an exit; 0 for the others.
        elements: Of a port access how many, 1 of an MMIO access, else 0.
        end: A ``RunEnd`` number.
        is_write: Whether the guest writes, as a number.
        size: Bytes of an element.
    """

    entered_ns: int
    left_ns: int
    addr: int
    reason: int
    elements: int
    end: int
    is_write: int
    size: int


def traced_exits(data: bytes) -> Iterator[TracedExit]:
    """Read the records that ``VcpuFd.trace_exits`` hands out.

    Raises:
        ValueError: The bytes are not whole records.
    """
    if len(data) % _RECORD.size:
        raise ValueError(f"{len(data)} bytes are not whole records of {_RECORD.size}")
    return map(TracedExit._make, _RECORD.iter_unpack(data))
