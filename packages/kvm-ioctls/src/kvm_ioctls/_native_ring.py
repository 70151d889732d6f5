"""Writes that the C loop keeps for Python."""

from __future__ import annotations

import os
import threading
from typing import final

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._ffi import CData, ffi, lib

__all__ = ("Ring", "own_eventfd")

_MOST = 1 << 20


def own_eventfd(name: str, fd: int) -> int:
    """Return a duplicate of the eventfd that a caller gave as `name`.

    Raises:
        ValueError: It is something else, which a write could block on.
    """
    link = f"/proc/self/fd/{fd}"
    try:
        target = os.readlink(link)  # noqa: PTH115 - the target is no path
    except OSError:
        raise ValueError(f"{name}={fd} is not an open file descriptor") from None
    if target != "anon_inode:[eventfd]":
        raise ValueError(f"{name}={fd} is {target}, not an eventfd: a write could block the vCPU")
    return os.dup(fd)


@final
class Ring:
    """Keeps written elements, oldest first, until Python drains them; what finds it full goes to Python.

    Any number of ranges, tables and vCPUs may share one. A string instruction is kept whole or not at all.
    A write that ``run`` returns came after everything in the ring: drain first, then answer it.

    Args:
        capacity: Elements: a power of two, 1..2^20.
        wake: An eventfd, of which the ring keeps a duplicate: 1 is added when a write comes after ``drain``
            has seen the end.

    Attributes:
        capacity: As it was given.
        pointer: The C ring, for tables that name it; valid while this object lives.

    Raises:
        ValueError: Another capacity, or `wake` is no eventfd.
    """

    __slots__ = ("_lock", "_out", "_slots", "_wake", "capacity", "pointer")
    capacity: int
    pointer: CData

    def __init__(self, capacity: int = 1024, *, wake: int | None = None) -> None:
        self._wake = -1
        if not 1 <= capacity <= _MOST or capacity & (capacity - 1):
            raise ValueError(f"capacity={capacity} is not a power of two in 1..{_MOST}")
        self.capacity = capacity
        self._lock = threading.Lock()
        self._slots = ffi.new("struct kvmx_slot[]", capacity)
        self._out = ffi.new("struct kvmx_write[]", capacity)
        self.pointer = ffi.new("struct kvmx_ring *")
        self._wake = -1 if wake is None else own_eventfd("wake", wake)
        self.pointer.size, self.pointer.fd = capacity, self._wake
        # SAFETY: the slots live as long as this object, which every table that names it keeps alive.
        self.pointer.slots = self._slots

    def drain(self) -> list[kvm.RingWrite]:
        """Take what is there, at most `capacity`, oldest first; from any thread.

        A full batch may have left something, for which `wake` is told again.
        """
        from kvm_ioctls._rings import ring_writes  # noqa: PLC0415 - few need it

        with self._lock:
            # SAFETY: _out has room for `capacity`; the lock makes this the ring's only reader.
            count = lib.kvmx_ring_take(self.pointer, self._out, self.capacity)
            if count == self.capacity and self._wake >= 0:
                os.eventfd_write(self._wake, 1)
            return ring_writes(self._out, count)

    def __del__(self) -> None:
        if self._wake >= 0:
            os.close(self._wake)
