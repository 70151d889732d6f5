"""Exits that the C loop answers without coming back to Python."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Literal, TypeAlias, final

import attrs

from kvm_ioctls._ffi import CData, ffi, lib
from kvm_ioctls._native_ring import Ring, own_eventfd
from kvm_ioctls._wire import check_u64

__all__ = ("Constant", "Counter", "Drop", "Eventfd", "Latch", "NativeExits", "NativeRange")

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_LAST = {"pio": 0xFFFF, "mmio": _U64}


def _in_u64(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= _U64:
        raise ValueError(f"{attribute.name}={value:#x} is not in 0..{_U64:#x}")


@attrs.frozen
class Constant:
    """Reads give the low bytes of `value`, the same at every offset; string reads repeat it."""

    value: int = attrs.field(default=_U64, validator=_in_u64)


@attrs.frozen
class Drop:
    """Writes vanish."""


@attrs.frozen
class Eventfd:
    """Each written element adds 1 to eventfd `fd`, which the table duplicates and so keeps open itself."""

    fd: int


class _Cell:
    """A 64-bit number shared between C and Python; it outlives the tables that name it."""

    __slots__ = ("_cell",)

    def __init__(self, value: int = 0) -> None:
        check_u64(value=value)
        self._cell = ffi.new("uint64_t *", value)

    @property
    def value(self) -> int:
        """The number now; may be read from any thread."""
        return lib.kvmx_cell_load(self._cell)

    @value.setter
    def value(self, value: int) -> None:
        """Set it, 0..2^64-1 (ValueError beyond), from any thread."""
        check_u64(value=value)
        lib.kvmx_cell_store(self._cell, value)


@final
class Latch(_Cell):
    """Keeps the last written element, zero-extended; as `read=` it gives the kept value back.

    Args:
        value: What it holds at first, 0..2^64-1 (ValueError beyond).
    """

    __slots__ = ()


@final
class Counter(_Cell):
    """Counts written elements, modulo 2^64; as `read=` it gives the count.

    Args:
        value: What it starts from, 0..2^64-1 (ValueError beyond).
    """

    __slots__ = ()


ReadAction: TypeAlias = Constant | Latch | Counter | None
WriteAction: TypeAlias = Drop | Latch | Counter | Eventfd | Ring | None


@attrs.frozen
class NativeRange:
    """`size` ports or bytes from `base` of a `space`, and what `read` and `write` do inside.

    None leaves them to Python. An access that only partly lies inside goes to Python as well.
    """

    space: Literal["pio", "mmio"] = attrs.field()
    base: int
    size: int
    read: ReadAction = None
    write: WriteAction = None

    @space.validator
    def _check_space(self, _: object, space: str) -> None:
        if space not in _LAST:
            raise ValueError(f"space={space!r} is neither 'pio' nor 'mmio'")

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or self.base < 0 or self.last > _LAST[self.space]:
            raise ValueError(
                f"{self.space} range base={self.base:#x} size={self.size:#x} "
                f"is not inside 0..{_LAST[self.space]:#x}"
            )

    @property
    def last(self) -> int:
        """The last port or address of the range."""
        return self.base + self.size - 1


_READ_KIND = {Constant: lib.KVMX_CONSTANT, Latch: lib.KVMX_LATCH, Counter: lib.KVMX_COUNTER}
_WRITE_KIND = {
    Drop: lib.KVMX_DROP,
    Latch: lib.KVMX_LATCH,
    Counter: lib.KVMX_COUNTER,
    Eventfd: lib.KVMX_EVENTFD,
    Ring: lib.KVMX_RING,
}


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()


@final
class NativeExits:
    """An immutable table of native ranges, passed to ``VcpuFd.run``.

    To change the ranges of running vCPUs build a new table, make each vCPU's next run use it and kick()
    them; once every one has come back, the old table is out of use and its eventfd duplicates close with
    its last reference.

    Args:
        ranges: Disjoint per space, in any order.

    Attributes:
        ranges: The same, sorted by space and base.
        pointer: The C table, for what hands it to the core; valid while this object lives.

    Raises:
        ValueError: Two ranges overlap, or an Eventfd names something else.
    """

    __slots__ = ("_fds", "_keep", "pointer", "ranges")
    ranges: tuple[NativeRange, ...]
    pointer: CData

    def __init__(self, ranges: Iterable[NativeRange] = ()) -> None:
        self.ranges = tuple(sorted(ranges, key=lambda r: (r.space, r.base)))
        self._fds: list[int] = []
        for low, high in zip(self.ranges, self.ranges[1:], strict=False):
            if low.space == high.space and high.base <= low.last:
                raise ValueError(
                    f"native {low.space} ranges overlap: {low.base:#x}..{low.last:#x} "
                    f"and {high.base:#x}..{high.last:#x}"
                )
        try:
            self._build()
        except BaseException:
            _close_all(self._fds)
            raise

    def _build(self) -> None:
        pio = [r for r in self.ranges if r.space == "pio"]
        mmio = [r for r in self.ranges if r.space == "mmio"]
        arrays = [ffi.new("struct kvmx_range[]", max(1, len(part))) for part in (pio, mmio)]
        for array, part in zip(arrays, (pio, mmio), strict=True):
            for entry, native in zip(array, part, strict=False):
                self._fill(entry, native)
        self._keep = arrays
        self.pointer = ffi.new("struct kvmx_table *")
        self.pointer.abi = lib.KVMX_ABI << 32 | ffi.sizeof("struct kvmx_table")
        self.pointer.npio, self.pointer.nmmio = len(pio), len(mmio)
        self.pointer.pio, self.pointer.mmio = arrays
        if lib.kvmx_table_check(self.pointer):
            raise ValueError(
                f"the C core refused a table of {len(self.ranges)} ranges [errno {errno.EINVAL}]"
            )

    def _fill(self, entry: CData, native: NativeRange) -> None:
        entry.base, entry.last, entry.fd = native.base, native.last, -1
        if native.read is not None:
            entry.read_kind = _READ_KIND[type(native.read)]
        if native.write is not None:
            entry.write_kind = _WRITE_KIND[type(native.write)]
        if isinstance(native.read, Constant):
            entry.constant = native.read.value
        elif native.read is not None:
            # SAFETY: the cell lives in the Latch or Counter, which self.ranges keeps alive.
            entry.read_cell = native.read._cell
        if isinstance(native.write, (Latch, Counter)):
            # SAFETY: as above.
            entry.write_cell = native.write._cell
        elif isinstance(native.write, Eventfd):
            self._fds.append(own_eventfd("fd", native.write.fd))
            entry.fd = self._fds[-1]
        elif isinstance(native.write, Ring):
            # SAFETY: self.ranges keeps the ring alive.
            entry.ring = native.write.pointer

    def hits(self) -> tuple[int, ...]:
        """Return how many exits each of ``ranges`` answered, in that order."""
        counts = [
            entry.hits for n, array in zip(self._sizes(), self._keep, strict=True) for entry in array[0:n]
        ]
        pio = [i for i, r in enumerate(self.ranges) if r.space == "pio"]
        mmio = [i for i, r in enumerate(self.ranges) if r.space == "mmio"]
        by_index = dict(zip(pio + mmio, counts, strict=True))
        return tuple(by_index[i] for i in range(len(self.ranges)))

    def _sizes(self) -> tuple[int, int]:
        return self.pointer.npio, self.pointer.nmmio

    def __del__(self) -> None:
        _close_all(getattr(self, "_fds", []))

    def __len__(self) -> int:
        return len(self.ranges)

    def __repr__(self) -> str:
        return f"NativeExits({list(self.ranges)!r})"
