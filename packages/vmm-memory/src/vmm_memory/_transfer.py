"""Bytes between guest memory and file descriptors, without a copy in between."""

from __future__ import annotations

import errno
import os

from ._access import AccessMap
from ._errors import TransferError, UnexpectedEofError
from ._faults import access_error, number_error
from ._ffi import ffi, lib

__all__ = ("transfer",)


def transfer(table: AccessMap, inward: bool, addr: int, *, fd: int, count: int, offset: int | None) -> int:
    """Move `count` bytes: C continues short transfers, this the interrupted ones (signal handlers run here).

    Returns:
        count.

    Raises:
        GuestAccessError: Memory cannot serve the range; nothing has moved.
        UnexpectedEofError: Reading came to the end of the file.
        TransferError: The system call failed, or a non-blocking descriptor was not ready (EAGAIN).
    """
    if offset is not None and not 0 <= offset < 1 << 63:
        raise ValueError(f"file offset is {offset}, must be in 0 .. 2^63 - 1")
    try:
        rc = lib.vmm_check(table.map, addr, count, inward)
    except OverflowError:
        raise number_error(addr, count) from None
    if rc:
        raise access_error(table, rc, addr, count)
    step = lib.vmm_mem_read_fd if inward else lib.vmm_mem_write_fd
    out = ffi.new("uint64_t *")
    done = 0
    while done < count:
        at = -1 if offset is None else offset + done
        rc = step(table.map, addr + done, count - done, fd, at, out)
        done += out[0]
        if rc and rc != -errno.EINTR:
            what = f"{'read' if inward else 'write'} of fd {fd}: {os.strerror(-rc)}"
            raise TransferError(-rc, what, expected=count, completed=done)
        if rc == 0 and done < count:
            raise UnexpectedEofError(expected=count, completed=done)
    return count
