"""Many bytes in one call: fill, copy, compare, search, lists of ranges, file descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from ._access import AccessMap
from ._errors import TransferError, UnexpectedEofError
from ._faults import number_error
from ._ffi import CData, ffi, lib
from ._memory import READ, WRITE, CheckedMemory
from ._types import ReadableBuffer, WritableBuffer

__all__ = ("BulkMemory",)

_SCRATCH: Final = 1 << 16
_NOWHERE: Final = (1 << 64) - 1


class BulkMemory(CheckedMemory):
    """Accesses that run over much memory; each is checked whole before the first byte moves."""

    __slots__ = ()

    def fill(self, addr: int, size: int, byte: int = 0) -> None:
        """Set a range to one byte value.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was written.
            ValueError: byte is not in 0 .. 255.
        """
        if not 0 <= byte <= 255:
            raise ValueError(f"fill byte is {byte}, must be in 0 .. 255")
        lib.vmm_mem_fill(self._ready(((addr, size, WRITE),)).map, addr, size, byte)

    def copy_within(self, src: int, dst: int, size: int) -> None:
        """Copy from one place of guest memory to another; they may overlap (as memmove does it).

        Args:
            src: First address to read.
            dst: First address to write; its pages are marked dirty.
            size: Bytes.

        Raises:
            GuestAccessError: Not all of src is mapped, or not all of dst mapped and writable; nothing was
                copied.
        """
        table = self._ready(((src, size, READ), (dst, size, WRITE)))
        lib.vmm_mem_copy(table.map, dst, src, size)

    def compare(self, addr: int, data: ReadableBuffer) -> int | None:
        """Compare memory with bytes.

        Returns:
            How many bytes are equal before the first that is not; None when all are.

        Raises:
            GuestAccessError: Not all of it is mapped.
        """
        # SAFETY: C gets a pointer into bytes or into a buffer pinned by from_buffer, with its true length.
        source = data if isinstance(data, bytes) else ffi.from_buffer("char[]", data)
        return self._compare(addr, source, 0, len(source))

    def compare_within(self, addr: int, other: int, size: int) -> int | None:
        """Compare two ranges of guest memory; returns and raises as `compare`."""
        return self._compare(addr, ffi.NULL, other, size)

    def find(self, addr: int, size: int, data: ReadableBuffer) -> int | None:
        """Search a range for bytes; in linear time, on a copy of what was there.

        Args:
            addr: First address.
            size: Bytes to search, 0 or more.
            data: At least one byte.

        Returns:
            The address of the first occurrence that lies in the range whole, or None.

        Raises:
            GuestAccessError: Not all of the range is mapped.
            ValueError: data is empty.
        """
        needle = bytes(data)
        if not needle:
            raise ValueError("find: data has 0 bytes, must have at least 1")
        table = self._ready(((addr, size, READ),))
        room = max(_SCRATCH, 2 * len(needle)) if len(needle) <= size else 0
        if room == 0:
            return None
        scratch, out = ffi.new("uint8_t[]", room), ffi.new("uint64_t *")
        lib.vmm_mem_find(table.map, addr, size, needle, len(needle), scratch, room, out)
        return None if out[0] == _NOWHERE else addr + int(out[0])

    def gather(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """See GuestMemory.gather."""
        total = sum(size for _, size in ranges)
        table = self._ready_ranges(ranges, READ)
        out = bytearray(total)
        # SAFETY: C fills the bytearray, which from_buffer pins for the call, by exactly the ranges' sizes.
        target = ffi.from_buffer("uint8_t[]", out, True)
        lib.vmm_mem_gather(table.map, _packed(ranges), len(ranges), target, ffi.new("uint64_t *"))
        return bytes(out)

    def gather_into(self, ranges: Sequence[tuple[int, int]], buf: WritableBuffer) -> None:
        """As `gather`, into a buffer.

        Raises:
            GuestAccessError: Not all of it is mapped; the buffer is unchanged.
            ValueError: The buffer has another length than the ranges together.
        """
        # SAFETY: from_buffer pins the buffer for the call; its length is compared with what C will write.
        out = ffi.from_buffer("uint8_t[]", buf, True)
        _check_total(ranges, len(out))
        table = self._ready_ranges(ranges, READ)
        lib.vmm_mem_gather(table.map, _packed(ranges), len(ranges), out, ffi.new("uint64_t *"))

    def scatter(self, ranges: Sequence[tuple[int, int]], data: ReadableBuffer) -> None:
        """See GuestMemory.scatter."""
        # SAFETY: from_buffer pins the buffer for the call; its length is compared with what C will read.
        source = data if isinstance(data, bytes) else ffi.from_buffer("uint8_t[]", data)
        _check_total(ranges, len(source))
        table = self._ready_ranges(ranges, WRITE)
        lib.vmm_mem_scatter(table.map, _packed(ranges), len(ranges), source, ffi.new("uint64_t *"))

    def scatter_from_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """See GuestMemory.scatter_from_fd."""
        return self._transfer(True, ranges, fd, offset, short)

    def gather_to_fd(
        self, ranges: Sequence[tuple[int, int]], fd: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """See GuestMemory.gather_to_fd."""
        return self._transfer(False, ranges, fd, offset, short)

    def read_from_fd(
        self, addr: int, fd: int, count: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """Fill memory straight from a file descriptor; interrupted and short reads are continued.

        Args:
            addr: First guest physical address.
            fd: A readable, blocking descriptor.
            count: Bytes, all of which must arrive.
            offset: Where in the file; None reads on at its position (sockets, pipes).
            short: Take what one system call brings; 0 is the end of the file.

        Returns:
            Bytes moved: `count`, or with `short` 0 .. `count`.

        Raises:
            GuestAccessError: Not all of it is mapped and writable; nothing was read.
            UnexpectedEofError: The file ended first; `completed` bytes were written to memory and marked.
            TransferError: read(2) failed; likewise.
        """
        return self._transfer(True, ((addr, count),), fd, offset, short)

    def write_to_fd(
        self, addr: int, fd: int, count: int, *, offset: int | None = None, short: bool = False
    ) -> int:
        """Write memory straight to a file descriptor; interrupted and short writes are continued.

        Args:
            addr: First guest physical address.
            fd: A writable, blocking descriptor.
            count: Bytes.
            offset: Where in the file; None writes on at its position.
            short: Give what one system call takes.

        Returns:
            Bytes moved: `count`, or with `short` 0 .. `count`.

        Raises:
            GuestAccessError: Not all of it is mapped; nothing was written.
            TransferError: write(2) failed after `completed` bytes.
        """
        return self._transfer(False, ((addr, count),), fd, offset, short)

    def _ready(self, needs: Sequence[tuple[int, int, int]]) -> AccessMap:
        """A table that serves all of these (address, size, access), or the exception for what it cannot."""
        while True:
            table = self._access or self._renew()
            for addr, size, access in needs:
                if rc := self._check(table, addr, size, access):
                    self._refused(table, rc, addr, size, access)
                    break
            else:
                return table

    def _ready_ranges(self, ranges: Sequence[tuple[int, int]], access: int) -> AccessMap:
        packed, out = _packed(ranges), ffi.new("uint64_t *")
        while True:
            table = self._access or self._renew()
            rc = lib.vmm_mem_check_ranges(table.map, packed, len(ranges), access, out)
            if not rc:
                return table
            addr, size = ranges[out[0]]
            self._refused(table, rc, addr, size, access)

    def _compare(self, addr: int, data: CData | bytes, other: int, size: int) -> int | None:
        needs = [(addr, size, READ)] + [(other, size, READ)] * (data is ffi.NULL)
        out = ffi.new("uint64_t *")
        lib.vmm_mem_compare(self._ready(needs).map, addr, data, other, size, out)
        return None if out[0] == size else int(out[0])

    def _transfer(
        self, inward: bool, ranges: Sequence[tuple[int, int]], fd: int, offset: int | None, short: bool
    ) -> int:
        """Move bytes: C continues short transfers, this the interrupted ones (signal handlers run here)."""
        if offset is not None and not 0 <= offset < 1 << 63:
            raise ValueError(f"file offset is {offset}, must be in 0 .. 2^63 - 1")
        table = self._ready_ranges(ranges, WRITE if inward else READ)
        packed, count, out = _packed(ranges), sum(size for _, size in ranges), ffi.new("uint64_t *")
        done = 0
        while done < count:
            at = -1 if offset is None else offset + done
            rc = lib.vmm_mem_transfer(table.map, packed, len(ranges), done, fd, at, inward, short, out)
            done += int(out[0])
            if rc and rc != -errno.EINTR:
                what = f"{'read' if inward else 'write'} of fd {fd}: {os.strerror(-rc)}"
                raise TransferError(-rc, what, expected=count, completed=done)
            if rc == 0 and short:
                break
            if rc == 0 and done < count:
                raise UnexpectedEofError(expected=count, completed=done)
        return done


def _packed(ranges: Sequence[tuple[int, int]]) -> CData:
    try:
        return ffi.new("struct vmm_range[]", ranges)
    except OverflowError:
        for addr, size in ranges:
            if not 0 <= addr <= _NOWHERE or not 0 <= size <= _NOWHERE:
                raise number_error(addr, size) from None
        raise


def _check_total(ranges: Sequence[tuple[int, int]], have: int) -> None:
    total = sum(size for _, size in ranges)
    if total != have:
        raise ValueError(f"ranges have {total:#x} bytes together, the buffer has {have:#x}")
