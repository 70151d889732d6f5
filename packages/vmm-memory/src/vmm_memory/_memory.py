"""Checked accesses over a table: what every memory of this package has in common."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Final

import vmm_memory  # whose names load when they are used

from ._access import AccessMap
from ._errors import GuestAccessError, GuestMemoryError, InvalidGuestAddressError
from ._faults import ORDERS, access_error, number_error, typed_error
from ._ffi import CData, ffi, lib
from ._holders import Holders
from ._slice import GuestSlice
from ._types import LOAD_ORDERS, STORE_ORDERS, MemoryOrder, ReadableBuffer, WritableBuffer

__all__ = ("READ", "READ_WRITE", "WRITE", "CheckedMemory")

# Bound once: an attribute lookup on lib costs a third of a whole access.
_read: Final = lib.vmm_read
_write: Final = lib.vmm_write
_load: Final = lib.vmm_mem_load
_store: Final = lib.vmm_mem_store
_load_relaxed: Final = lib.mem_load_relaxed
_store_relaxed: Final = lib.mem_store_relaxed
_RELAXED: Final = MemoryOrder.RELAXED
_POISON: Final = lib.VMM_MEM_POISON
READ: Final = lib.VMM_READ
"""An access that only reads, as C takes it."""
WRITE: Final = lib.VMM_WRITE
"""An access that only writes."""
READ_WRITE: Final = lib.VMM_READ_WRITE
"""An access that does both."""
_new_bytes: Final = ffi.new_allocator(should_clear_after_alloc=False)
_unpack: Final = ffi.unpack
_from_buffer: Final = ffi.from_buffer
# A guest that names a huge size must not make us allocate it before we know that it is mapped.
_CHECK_FIRST: Final = 1 << 16
_LIMIT: Final = 1 << 64


class CheckedMemory:
    """Accesses to the table of the moment.

    Each takes the table once and keeps it to the end of the call. What C refuses goes to `_refused`, which
    raises, or returns when another try may succeed.
    """

    __slots__ = ("_access",)
    _access: AccessMap | None

    def _renew(self) -> AccessMap:
        """Make the table anew; called while `_access` is None."""
        raise NotImplementedError(f"{self!r} has no table")

    def _refused(self, table: AccessMap, rc: int, addr: int, size: int, access: int) -> None:  # noqa: ARG002
        """Raise what rc, an -errno of C, means for this range; or return to have it tried again."""
        raise access_error(table, rc, addr, size)

    def access_map(self) -> AccessMap:
        """See GuestMemory.access_map."""
        return self._access or self._renew()

    def resolve(self, addr: int, size: int, *, write: bool = False) -> None:
        """See GuestMemory.resolve."""
        access = WRITE if write else READ
        while rc := self._check((table := self._access or self._renew()), addr, size, access):
            self._refused(table, rc, addr, size, access)

    def read(self, addr: int, size: int) -> bytes:
        """See GuestMemory.read."""
        while True:
            table = self._access or self._renew()
            try:
                if size > _CHECK_FIRST and (rc := lib.vmm_check(table.map, addr, size, READ)):
                    self._refused(table, rc, addr, size, READ)
                    continue
                # SAFETY: the buffer is not cleared: C fills all of it, or says by its result that it did not.
                out = _new_bytes("char[]", size)
                rc = _read(table.map, addr, out, size)
            except (OverflowError, ValueError):
                raise number_error(addr, size) from None
            if not rc:
                return _unpack(out, size)
            self._refused(table, rc, addr, size, READ)

    def read_into(self, addr: int, buf: WritableBuffer) -> None:
        """See GuestMemory.read_into."""
        # SAFETY: from_buffer pins the buffer for the call; C gets its true length.
        out = _from_buffer("char[]", buf, True)
        try:
            if (table := self._access) and not _read(table.map, addr, out, len(out)):
                return
        except OverflowError:
            pass  # _copy names it
        self._copy(_read, addr, out, READ)

    def write(self, addr: int, data: ReadableBuffer) -> None:
        """See GuestMemory.write."""
        # SAFETY: C gets a pointer into bytes or into a buffer pinned by from_buffer, with its true length.
        source = data if isinstance(data, bytes) else _from_buffer("char[]", data)
        try:
            if (table := self._access) and not _write(table.map, addr, source, len(source)):
                return
        except OverflowError:
            pass  # _copy names it
        self._copy(_write, addr, source, WRITE)

    def read_some(self, addr: int, size: int) -> bytes:
        """Copy as much out as is mapped without a gap.

        Returns:
            1 .. `size` bytes; none only when `size` is 0.

        Raises:
            GuestAccessError: `addr` itself is not mapped.
        """
        return self.read(addr, self._reach(addr, size, READ))

    def write_some(self, addr: int, data: ReadableBuffer) -> int:
        """Copy as much of `data` in as is mapped and writable without a gap, and mark the pages dirty.

        Returns:
            Bytes copied, at least 1; 0 only when `data` is empty.

        Raises:
            GuestAccessError: `addr` itself is not mapped or not writable.
        """
        with memoryview(data) as view, view.cast("B") as source:
            size = self._reach(addr, len(source), WRITE)
            with source[:size] as part:
                self.write(addr, part)
        return size

    def load(self, addr: int, size: int, order: MemoryOrder = MemoryOrder.RELAXED) -> int:
        """See GuestMemory.load."""
        while True:
            table = self._access or self._renew()
            try:
                value = _load(table.map, addr, size, order)
            except OverflowError:
                raise number_error(addr, size) from None
            if value != _POISON or not (rc := lib.vmm_mem_load_error(table.map, addr, size, order)):
                return value
            self._typed_refused(table, rc, addr, size, READ)

    def store(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store."""
        while True:
            table = self._access or self._renew()
            try:
                rc = _store(table.map, addr, size, order, value)
            except OverflowError:
                raise number_error(addr, size, value) from None
            if not rc:
                return
            self._typed_refused(table, rc, addr, size, WRITE, value=value)

    def fetch_or(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """See GuestMemory.fetch_or."""
        return self._modify(lib.VMM_MEM_OR, addr, size, value, expected=0, order=order)

    def fetch_and(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """As `fetch_or`: clear the bits that `value` has not."""
        return self._modify(lib.VMM_MEM_AND, addr, size, value, expected=0, order=order)

    def fetch_add(self, addr: int, size: int, value: int, order: MemoryOrder = MemoryOrder.SEQ_CST) -> int:
        """As `fetch_or`: add `value`, modulo 2^(8 * size)."""
        return self._modify(lib.VMM_MEM_ADD, addr, size, value, expected=0, order=order)

    def compare_exchange(
        self, addr: int, size: int, expected: int, desired: int, order: MemoryOrder = MemoryOrder.SEQ_CST
    ) -> int:
        """See GuestMemory.compare_exchange."""
        return self._modify(lib.VMM_MEM_EXCHANGE, addr, size, desired, expected=expected, order=order)

    def load_vector(self, vector: vmm_memory.AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.load_vector."""
        table = self._access
        bound, call = vector.bound
        if table is None or bound is not table.map or order is not _RELAXED:
            self._go_on(lib.vmm_mem_load_vector, vector, order, 0, access=READ)
        elif not _load_relaxed(call):
            self._go_on(lib.vmm_mem_load_vector, vector, order, vector.done, access=READ)

    def store_vector(self, vector: vmm_memory.AccessVector, order: MemoryOrder = MemoryOrder.RELAXED) -> None:
        """See GuestMemory.store_vector."""
        table = self._access
        bound, call = vector.bound
        if table is None or bound is not table.map or order is not _RELAXED:
            self._go_on(lib.vmm_mem_store_vector, vector, order, 0, access=WRITE)
        elif not _store_relaxed(call):
            self._go_on(lib.vmm_mem_store_vector, vector, order, vector.done, access=WRITE)

    def read_struct(self, addr: int, layout: struct.Struct) -> tuple[int | float | bytes, ...]:
        """Copy a structure out once and unpack the copy.

        Raises:
            GuestAccessError: Not all of it is mapped.
        """
        return layout.unpack(self.read(addr, layout.size))

    def write_struct(self, addr: int, layout: struct.Struct, *values: int | float | bytes) -> None:
        """Pack a structure and write it.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was written.
            struct.error: The values do not fit the layout.
        """
        self.write(addr, layout.pack(*values))

    def check_range(self, addr: int, size: int, *, write: bool = False) -> bool:
        """See GuestMemory.check_range."""
        try:
            self.resolve(addr, size, write=write)
        except (GuestMemoryError, ValueError):
            return False
        return True

    def get_slice(self, addr: int, size: int, *, write: bool = False) -> GuestSlice:
        """See GuestMemory.get_slice."""
        access = WRITE if write else READ
        while True:
            table = self._access or self._renew()
            row = table.row_of(addr)
            rc = self._check(table, addr, max(size, 1), access)
            if row is not None and not rc:
                break
            self._refused(table, rc or -errno.EFAULT, addr, size, access)
        if size < 0 or addr + size > row.base + row.size:
            reason = (
                f"leaves the region {row.base:#x}-{row.base + row.size - 1:#x}; a slice lies in one region"
            )
            raise InvalidGuestAddressError(addr, size, reason)
        bitmap, start = row.bitmap, row.dirty_base + addr - row.base

        def mark(offset: int, count: int) -> None:
            if bitmap is not None:
                bitmap.set_addr_range(start + offset, count)

        marker = mark if write else None
        return row.region.window(row.offset + addr - row.base, size, addr, marker, self._lenders())

    def mark_dirty(self, addr: int, size: int) -> None:
        """See GuestMemory.mark_dirty."""
        table = self._access or self._renew()
        try:
            lib.vmm_mark_dirty(table.map, addr, size)
        except OverflowError:
            raise number_error(addr, size) from None

    def _lenders(self) -> tuple[Holders, ...]:
        """Who, besides the region, must know of slices."""
        return ()

    def _check(self, table: AccessMap, addr: int, size: int, access: int) -> int:
        try:
            return lib.vmm_check(table.map, addr, size, access)
        except OverflowError:
            raise number_error(addr, size) from None

    def _reach(self, addr: int, size: int, access: int) -> int:
        """How many of `size` bytes can be accessed without a gap; raises when that is none."""
        while True:
            table = self._access or self._renew()
            try:
                reach = lib.vmm_mem_reach(table.map, addr, size, access)
            except OverflowError:
                raise number_error(addr, size) from None
            if reach == size:
                return reach
            rest = min(size - reach, _LIMIT - addr - reach)
            rc = self._check(table, addr + reach, rest, access) if rest else -errno.ERANGE
            try:
                self._refused(table, rc, addr + reach, size - reach, access)
            except GuestAccessError:
                if reach == 0:
                    raise
                return reach

    def _modify(self, op: int, addr: int, size: int, value: int, *, expected: int, order: MemoryOrder) -> int:
        out = ffi.new("uint64_t *")
        while True:
            table = self._access or self._renew()
            try:
                rc = lib.vmm_mem_modify(table.map, addr, size, order, op, value, expected, out)
            except OverflowError:
                raise number_error(addr, size, expected if 0 <= value < _LIMIT else value) from None
            if not rc:
                return int(out[0])
            wrong = value if value >> (8 * size) else expected
            self._typed_refused(table, rc, addr, size, READ_WRITE, value=wrong)

    def _typed_refused(
        self, table: AccessMap, rc: int, addr: int, size: int, access: int, *, value: int = 0
    ) -> None:
        if rc in {-errno.EINVAL, -errno.EDOM}:
            raise typed_error(rc, addr, size, value)
        self._refused(table, rc, addr, size, access)

    def _go_on(
        self,
        call: Callable[[CData, CData, int, int], int],
        vector: vmm_memory.AccessVector,
        order: MemoryOrder,
        first: int,
        *,
        access: int,
    ) -> None:
        """Make the accesses of a vector from number `first` on, which the short way did not."""
        if order not in (LOAD_ORDERS if access == READ else STORE_ORDERS):
            raise ValueError(ORDERS)
        while True:
            table = self._access or self._renew()
            if vector.bound[0] is not table.map:
                vector.bind(table.map)
            rc = call(table.map, vector.vector, order, first)
            if not rc:
                return
            first = vector.done
            try:
                self._typed_refused(table, rc, vector.addresses[first], vector.size, access)
            except GuestAccessError as error:
                error.completed = first
                raise

    def _copy(self, call: Callable[..., int], addr: int, buf: CData | bytes, access: int) -> None:
        while True:
            table = self._access or self._renew()
            try:
                rc = call(table.map, addr, buf, len(buf))
            except OverflowError:
                raise number_error(addr, len(buf)) from None
            if not rc:
                return
            self._refused(table, rc, addr, len(buf), access)
