"""Guest memory as plain Python: the readable specification, and the oracle of the property tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from .._access import AccessMap
from .._errors import InvalidGuestAddressError, MisalignedAccessError, ReadOnlyRegionError
from .._faults import number_error, unmapped_error
from .._slice import GuestSlice
from .._types import MemoryOrder, ReadableBuffer, WritableBuffer

__all__ = ("ByteArrayMemory",)

_ORDERS: Final = "memory order: loads take RELAXED, ACQUIRE or SEQ_CST, stores RELAXED, RELEASE or SEQ_CST"
_LOADS: Final = {MemoryOrder.RELAXED, MemoryOrder.ACQUIRE, MemoryOrder.SEQ_CST}
_STORES: Final = {MemoryOrder.RELAXED, MemoryOrder.RELEASE, MemoryOrder.SEQ_CST}


class ByteArrayMemory:
    """GuestMemory over one bytearray per range; nothing is atomic, so one thread only.

    Args:
        ranges: Disjoint (base, size), any sizes; adjacent ranges stay separate regions.
        read_only: Bases of the ranges that cannot be written.
        page_size: Bytes per dirty page, counted from each range's base.

    Attributes:
        dirty: Pages written so far as (base of the range, page number).
    """

    def __init__(
        self, ranges: Iterable[tuple[int, int]], *, read_only: Iterable[int] = (), page_size: int = 4096
    ) -> None:
        self._ranges: Final = sorted((base, bytearray(size)) for base, size in ranges)
        self._read_only: Final = frozenset(read_only)
        self._page_size: Final = page_size
        self.dirty: Final[set[tuple[int, int]]] = set()
        for (low, data), (high, _) in zip(self._ranges, self._ranges[1:], strict=False):
            if low + len(data) > high:
                raise ValueError(f"ranges overlap: {low:#x} + {len(data):#x} and {high:#x}")

    def memory(self) -> ByteArrayMemory:
        """Itself (GuestAddressSpace)."""
        return self

    def read(self, addr: int, size: int) -> bytes:
        """See GuestMemory.read."""
        return b"".join(bytes(data[start : start + n]) for _, data, start, n in self._pieces(addr, size))

    def read_into(self, addr: int, buf: WritableBuffer) -> None:
        """See GuestMemory.read_into."""
        target = memoryview(buf).cast("B")
        target[:] = self.read(addr, len(target))

    def write(self, addr: int, data: ReadableBuffer) -> None:
        """See GuestMemory.write."""
        source = bytes(data)
        done = 0
        for _, target, start, n in self._pieces(addr, len(source), write=True):
            target[start : start + n] = source[done : done + n]
            done += n
        self.mark_dirty(addr, len(source))

    def load(self, addr: int, size: int, order: MemoryOrder = MemoryOrder.RELAXED) -> int:
        """See GuestMemory.load."""
        self._check_typed(addr, size, order in _LOADS, write=False)
        return int.from_bytes(self.read(addr, size), "little")

    def store(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store."""
        if size in {1, 2, 4, 8} and not 0 <= value < 1 << (8 * size):
            raise ValueError(f"value is {value:#x}, must be in 0 .. 2^{8 * size} - 1 for {size} bytes")
        self._check_typed(addr, size, order in _STORES, write=True)
        self.write(addr, value.to_bytes(size, "little"))

    def check_range(self, addr: int, size: int, *, write: bool = False) -> bool:
        """See GuestMemory.check_range."""
        try:
            self._pieces(addr, size, write=write)
        except (InvalidGuestAddressError, ReadOnlyRegionError, ValueError):
            return False
        return True

    def get_slice(self, addr: int, size: int, *, write: bool = False) -> GuestSlice:
        """See GuestMemory.get_slice."""
        pieces = self._pieces(addr, size, write=write) if size else self._empty_piece(addr, write=write)
        if len(pieces) > 1:
            raise InvalidGuestAddressError(addr, size, "spans regions; a slice lies in one region")
        _, data, start, n = pieces[0]

        def mark(offset: int, count: int) -> None:
            self.mark_dirty(addr + offset, count)

        return GuestSlice(self, memoryview(data)[start : start + n], addr, mark if write else None)

    def mark_dirty(self, addr: int, size: int) -> None:
        """See GuestMemory.mark_dirty."""
        for base, data in self._ranges:
            first, end = max(addr, base) - base, min(addr + size, base + len(data)) - base
            if size and first < end:
                self.dirty.update(
                    (base, page) for page in range(first // self._page_size, -(-end // self._page_size))
                )

    def access_map(self) -> AccessMap:
        """Not possible: a bytearray has no table for C.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("ByteArrayMemory has no table for C; use GuestMemoryMmap")

    def fill(self, addr: int, size: int, byte: int = 0) -> None:
        """As GuestMemoryMmap.fill."""
        self._pieces(addr, size, write=True)
        self.write(addr, bytes([byte]) * size)

    def regions(self) -> Iterator[tuple[int, int]]:
        """The (base, size) ranges in ascending order."""
        return ((base, len(data)) for base, data in self._ranges)

    def _check_typed(self, addr: int, size: int, order_ok: bool, *, write: bool) -> None:
        if size not in {1, 2, 4, 8}:
            raise ValueError(f"size is {size}, must be 1, 2, 4 or 8")
        if not 0 <= addr < 1 << 64:
            raise number_error(addr, size)
        if addr % size:
            raise MisalignedAccessError(addr, size, f"address must be a multiple of {size}")
        if not order_ok:
            raise ValueError(_ORDERS)
        self._pieces(addr, size, write=write)

    def _empty_piece(self, addr: int, *, write: bool) -> list[tuple[int, bytearray, int, int]]:
        return [(base, data, start, 0) for base, data, start, _ in self._pieces(addr, 1, write=write)]

    def _pieces(self, addr: int, size: int, *, write: bool = False) -> list[tuple[int, bytearray, int, int]]:
        """(base, bytes, start, count) per range touched, or the exception the real thing would raise."""
        if not 0 <= addr < 1 << 64 or not 0 <= size < 1 << 64:
            raise number_error(addr, size)
        if size and addr + size > 1 << 64:
            raise InvalidGuestAddressError(addr, size, "wraps around 2^64")
        pieces = []
        at, end = addr, addr + size
        for base, data in self._ranges:
            if at < end and base <= at < base + len(data):
                if write and base in self._read_only:
                    raise ReadOnlyRegionError(addr, size, "touches a read-only region; nothing was written")
                pieces.append((base, data, at - base, min(end, base + len(data)) - at))
                at += pieces[-1][3]
        if at < end:
            raise unmapped_error([(base, len(data)) for base, data in self._ranges], addr, size)
        return pieces
