"""Rings that the kernel or the C loop fills and Python drains: dirty pages, and writes that need no exit."""

from __future__ import annotations

import mmap
from typing import Self, final

import attrs

from kvm_ioctls._arch import HOST_ARCH
from kvm_ioctls._errors import ClosedError, ForkedError
from kvm_ioctls._fd import generation
from kvm_ioctls._ffi import CData, check, ffi, lib

__all__ = ("CoalescedRing", "DirtyPage", "DirtyRing", "RingWrite", "ring_writes")

_COALESCED_PAGE = 2 if HOST_ARCH == "x86_64" else 1  # KVM_COALESCED_MMIO_PAGE_OFFSET
_DIRTY_PAGE = 64  # KVM_DIRTY_LOG_PAGE_OFFSET
_GFN_BYTES = 16
_MOST_DIRTY = 65536 * _GFN_BYTES  # KVM_DIRTY_RING_MAX_ENTRIES
_MOST_COALESCED = 65536 // 24  # a ring is one page, of at most 64 KiB


@attrs.frozen
class DirtyPage:
    """A page that the guest wrote: its slot (address space in bits 16 up) and its number in the slot."""

    slot: int
    page: int


@attrs.frozen
class RingWrite:
    """A write of the guest that a ring kept: `data`, 1..8 bytes, at address or (`pio`) port `addr`."""

    addr: int
    data: bytes
    pio: bool


def ring_writes(out: CData, count: int) -> list[RingWrite]:
    """Return the first `count` of an array of struct kvmx_write."""
    return [
        RingWrite(w.addr, w.data.to_bytes(8, "little")[: w.size], bool(w.pio))
        for w in (out[i] for i in range(count))
    ]


class _Ring:
    """A mapping of a vCPU's file that can be closed; while it is open the kernel keeps the vCPU."""

    def __init__(self, fd: int, offset: int, size: int, subject: str) -> None:
        self._subject = subject
        self._born = generation()
        self._map = mmap.mmap(fd, size, offset=offset)

    def _pointer(self) -> CData:
        if self._born != generation():
            raise ForkedError(f"{self._subject} belongs to the parent process")
        if self._map.closed:
            raise ClosedError(f"{self._subject} is closed")
        # SAFETY: the cdata holds the buffer export, so the mapping cannot be closed while C uses it.
        return ffi.from_buffer(self._map)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._map.closed

    def close(self) -> None:
        """Unmap it; a second call does nothing."""
        if self._born == generation():
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class DirtyRing(_Ring):
    """The dirty pages of one vCPU; made by ``VcpuFd.map_dirty_ring``.

    Harvested entries stay taken until ``VmFd.reset_dirty_rings``. One thread at a time.
    """

    def __init__(self, fd: int, size: int, subject: str) -> None:
        if not mmap.PAGESIZE <= size <= _MOST_DIRTY or size & (size - 1):
            raise ValueError(f"size={size:#x} is not a power of two in {mmap.PAGESIZE:#x}..{_MOST_DIRTY:#x}")
        super().__init__(fd, _DIRTY_PAGE * mmap.PAGESIZE, size, f"dirty ring of {subject}")
        self._entries = size // _GFN_BYTES
        self._out = ffi.new("struct kvmx_dirty[]", self._entries)
        self._next = ffi.new("uint32_t *")

    def harvest(self) -> list[DirtyPage]:
        """Take what is new, oldest first; read the pages before the reset, which watches them again.

        Raises:
            KvmStateError: Closed or forked.
        """
        ring = self._pointer()
        count = lib.kvmx_dirty_harvest(ring, self._entries, self._next, self._out)
        return [
            DirtyPage(self._out[i].slot, self._out[i].page) for i in range(check(count, "harvest", "ring"))
        ]


@final
class CoalescedRing(_Ring):
    """The writes to coalesced zones of a VM; made by ``VcpuFd.map_coalesced_ring``, of any one vCPU.

    The kernel adds; an exit comes only when it is full. One thread at a time.
    """

    def __init__(self, fd: int, subject: str) -> None:
        offset = _COALESCED_PAGE * mmap.PAGESIZE
        super().__init__(fd, offset, mmap.PAGESIZE, f"coalesced ring of {subject}")
        self._out = ffi.new("struct kvmx_write[]", _MOST_COALESCED)

    def drain(self) -> list[RingWrite]:
        """Take all that are there, oldest first.

        Raises:
            KvmAbiError: The ring contradicts its own size.
            KvmStateError: Closed or forked.
        """
        ring = self._pointer()
        count = check(lib.kvmx_coalesced_drain(ring, mmap.PAGESIZE, self._out), "drain", self._subject)
        return ring_writes(self._out, count)
