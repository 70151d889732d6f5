"""Typed accesses to many addresses in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from ._ffi import CData, ffi

__all__ = ("AccessVector",)

_FORMATS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class AccessVector:
    """Addresses and values of many loads or stores of one size: what `load_vector` and `store_vector` take.

    Made once and used again and again: nothing is allocated or converted per call. Not for two threads at
    once. A relaxed call for at most 1024 accesses keeps the interpreter's lock, as a memoryview does: a page
    that another thread of this interpreter would have to bring in (userfaultfd) never comes; have a process
    of its own for that.

    Args:
        addresses: Guest addresses, each a multiple of `size`, 0 .. 2^64 - 1; or how many there will be.
        size: Bytes of each access: 1, 2, 4 or 8.

    Attributes:
        addresses: The addresses, a writable memoryview of format Q.
        values: As many unsigned little-endian integers, a writable memoryview of format B, H, I or Q.
        size: Bytes of each access.
        done: How many accesses the last call made; fewer than `count` when it raised.

    Raises:
        ValueError: size is impossible, or there is no address.
        OverflowError: An address is not in 0 .. 2^64 - 1.
    """

    __slots__ = ("_gpa", "_hints", "_store", "addresses", "bound", "size", "values", "vector")

    def __init__(self, addresses: int | Sequence[int], size: int) -> None:
        if size not in _FORMATS:
            raise ValueError(f"size is {size}, must be 1, 2, 4 or 8")
        length = addresses if isinstance(addresses, int) else len(addresses)
        if length < 1:
            raise ValueError(f"vector has {length} addresses, must have at least 1")
        self.size: Final = size
        self._gpa: Final[CData] = ffi.new("uint64_t[]", addresses)
        self._store: Final[CData] = ffi.new("uint64_t[]", -(-length * size // 8))
        # SAFETY: both views cover exactly the arrays that this object owns, and keep them.
        self.addresses: Final = memoryview(ffi.buffer(self._gpa)).cast("B").cast("Q")
        self.values: Final = memoryview(ffi.buffer(self._store, length * size)).cast("B").cast(_FORMATS[size])
        self.vector: Final[CData] = ffi.new("struct vmm_vector *")
        self.vector.count, self.vector.size = length, size
        self._hints: Final[CData] = ffi.new("uint32_t[]", length)
        # SAFETY: the struct is only used through this object, which owns the arrays.
        self.vector.gpa, self.vector.values = self._gpa, ffi.cast("uint8_t *", self._store)
        self.vector.hints = self._hints
        self.bound: tuple[CData | None, CData] = None, ffi.NULL

    def bind(self, table: CData) -> CData:
        """Return what relaxed accesses to this `struct vmm_map` take; for `load_vector` and `store_vector`.

        They compare the map in `bound` with that of the moment at each call. It is kept, so that no other one
        gets its place, but neither the table of regions nor the memory: whoever calls into C keeps those.
        """
        # A new one each time: another thread, which should not be here, may be using the last.
        call = ffi.new("struct vmm_vector_call *", (table, self.vector))
        self.bound = table, call
        return call

    def __len__(self) -> int:
        """How many addresses there is room for."""
        return len(self.addresses)

    def __repr__(self) -> str:
        return f"<AccessVector of {self.count} x {self.size} bytes>"

    @property
    def count(self) -> int:
        """How many of the addresses, from the first on, the next call accesses; all of them unless set.

        Raises:
            ValueError: Set to less than 0 or more than there are.
        """
        return int(self.vector.count)

    @count.setter
    def count(self, count: int) -> None:
        if not 0 <= count <= len(self.addresses):
            raise ValueError(f"count is {count}, must be in 0 .. {len(self.addresses)}")
        self.vector.count = count

    @property
    def done(self) -> int:
        """How many accesses the last call made."""
        return int(self.vector.done)
