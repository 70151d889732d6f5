"""Guest memory as plain Python: the readable specification, and the oracle of the property tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from .._access import AccessMap
from .._errors import (
    GuestAccessError,
    InvalidGuestAddressError,
    MisalignedAccessError,
    ReadOnlyRegionError,
    UnexpectedEofError,
)
from .._faults import ORDERS, number_error, unmapped_error
from .._slice import GuestSlice
from .._types import LOAD_ORDERS, STORE_ORDERS, MemoryOrder, ReadableBuffer, WritableBuffer
from .._vector import AccessVector

__all__ = ("ByteArrayMemory",)

_SIZES: Final = (1, 2, 4, 8)


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
        self._check_typed(addr, size, order in LOAD_ORDERS, write=False)
        return int.from_bytes(self.read(addr, size), "little")

    def store(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store."""
        if size in _SIZES and not 0 <= value < 1 << (8 * size):
            raise ValueError(f"value is {value:#x}, must be in 0 .. 2^{8 * size} - 1 for {size} bytes")
        self._check_typed(addr, size, order in STORE_ORDERS, write=True)
        self.write(addr, value.to_bytes(size, "little"))

    def fetch_or(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """See GuestMemory.fetch_or."""
        return self._modify(addr, size, order, lambda old: old | value, value)

    def fetch_and(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """As GuestMemoryMmap.fetch_and."""
        return self._modify(addr, size, order, lambda old: old & value, value)

    def fetch_add(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """As GuestMemoryMmap.fetch_add."""
        return self._modify(addr, size, order, lambda old: (old + value) % (1 << (8 * size)), value)

    def compare_exchange(
        self, addr: int, size: int, expected: int, desired: int, order: MemoryOrder = MemoryOrder.SEQ_CST
    ) -> int:
        """See GuestMemory.compare_exchange."""

        def exchange(old: int) -> int | None:
            return desired if old == expected else None

        wrong = desired if size in _SIZES and not 0 <= desired < 1 << (8 * size) else expected
        return self._modify(addr, size, order, exchange, wrong)

    def load_vector(self, vector: AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.load_vector."""

        def load(i: int, addr: int) -> None:
            vector.values[i] = self.load(addr, vector.size, order)

        _each(vector, order in LOAD_ORDERS, load)

    def store_vector(self, vector: AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store_vector."""
        _each(
            vector,
            order in STORE_ORDERS,
            lambda i, at: self.store(at, vector.size, int(vector.values[i]), order),
        )

    def gather(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """See GuestMemory.gather."""
        return b"".join([self.read(addr, size) for addr, size in ranges])

    def scatter(self, ranges: Sequence[tuple[int, int]], data: ReadableBuffer) -> None:
        """See GuestMemory.scatter."""
        source, done = bytes(data), 0
        if (total := sum(size for _, size in ranges)) != len(source):
            raise ValueError(f"ranges have {total:#x} bytes together, the buffer has {len(source):#x}")
        for addr, size in ranges:
            self._pieces(addr, size, write=True)
        for addr, size in ranges:
            self.write(addr, source[done : done + size])
            done += size

    def scatter_from_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """See GuestMemory.scatter_from_fd."""
        for addr, size in ranges:
            self._pieces(addr, size, write=True)
        total, data = sum(size for _, size in ranges), b""
        while len(data) < total:
            left = total - len(data)
            piece = os.read(fd, left) if offset is None else os.pread(fd, left, offset + len(data))
            data += piece
            if short or not piece:
                break
        done = 0
        for addr, size in ranges:
            self.write(addr, data[done : done + size])
            done += size
        if len(data) < total and not short:
            raise UnexpectedEofError(expected=total, completed=len(data))
        return len(data)

    def gather_to_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """See GuestMemory.gather_to_fd."""
        data, done = self.gather(ranges), 0
        while done < len(data):
            rest = data[done:]
            done += os.write(fd, rest) if offset is None else os.pwrite(fd, rest, offset + done)
            if short:
                break
        return done

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

    def resolve(self, addr: int, size: int, *, write: bool = False) -> None:
        """See GuestMemory.resolve."""
        self._pieces(addr, size, write=write)

    def copy_within(self, src: int, dst: int, size: int) -> None:
        """As GuestMemoryMmap.copy_within."""
        data = self.read(src, size)
        self.write(dst, data)

    def compare(self, addr: int, data: ReadableBuffer) -> int | None:
        """As GuestMemoryMmap.compare."""
        pairs = zip(self.read(addr, len(bytes(data))), bytes(data), strict=True)
        return next((i for i, (mine, theirs) in enumerate(pairs) if mine != theirs), None)

    def compare_within(self, addr: int, other: int, size: int) -> int | None:
        """As GuestMemoryMmap.compare_within."""
        self._pieces(addr, size)
        return self.compare(addr, self.read(other, size))

    def find(self, addr: int, size: int, data: ReadableBuffer) -> int | None:
        """As GuestMemoryMmap.find."""
        if not bytes(data):
            raise ValueError("find: data has 0 bytes, must have at least 1")
        found = self.read(addr, size).find(bytes(data))
        return None if found < 0 else addr + found

    def fill(self, addr: int, size: int, byte: int = 0) -> None:
        """As GuestMemoryMmap.fill."""
        self._pieces(addr, size, write=True)
        self.write(addr, bytes([byte]) * size)

    def regions(self) -> Iterator[tuple[int, int]]:
        """The (base, size) ranges in ascending order."""
        return ((base, len(data)) for base, data in self._ranges)

    def _check_typed(self, addr: int, size: int, order_ok: bool, *, write: bool) -> None:
        if size not in _SIZES:
            raise ValueError(f"size is {size}, must be 1, 2, 4 or 8")
        if not 0 <= addr < 1 << 64:
            raise number_error(addr, size)
        if addr % size:
            raise MisalignedAccessError(addr, size, f"address must be a multiple of {size}")
        if not order_ok:
            raise ValueError(ORDERS)
        self._pieces(addr, size, write=write)

    def _modify(
        self, addr: int, size: int, order: MemoryOrder, change: Callable[[int], int | None], value: int
    ) -> int:
        if size in _SIZES and not 0 <= value < 1 << (8 * size):
            raise ValueError(f"value is {value:#x}, must be in 0 .. 2^{8 * size} - 1 for {size} bytes")
        self._check_typed(addr, size, order in LOAD_ORDERS | STORE_ORDERS, write=True)
        old = int.from_bytes(self.read(addr, size), "little")
        new = change(old)
        if new is not None:
            self.write(addr, new.to_bytes(size, "little"))
        return old

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


def _each(vector: AccessVector, order_ok: bool, access: Callable[[int, int], None]) -> None:
    if not order_ok:
        raise ValueError(ORDERS)
    for i in range(vector.count):
        try:
            access(i, int(vector.addresses[i]))
        except GuestAccessError as error:
            error.completed = i
            raise
