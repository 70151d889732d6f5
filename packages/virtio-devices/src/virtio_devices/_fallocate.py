"""fallocate(2), which the os module does not have; only the pure-Python data path uses it."""

import errno
import functools
import os
from collections.abc import Callable

KEEP_SIZE = 1
PUNCH_HOLE = 2
ZERO_RANGE = 16


@functools.cache
def _libc() -> tuple[Callable[[int, int, int, int], int], Callable[[], int]]:
    """The C library's function, and errno. Slow to import, and who has the C data path needs none."""
    import ctypes  # noqa: PLC0415

    call = ctypes.CDLL(None, use_errno=True).fallocate64
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    call.restype = ctypes.c_int
    return call, ctypes.get_errno


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Punch or zero a range, keeping the file's size.

    Raises:
        OSError: with the kernel's errno.
    """
    # SAFETY: four integers go in, no pointer does.
    call, last_error = _libc()
    while call(fd, mode | KEEP_SIZE, offset, length) != 0:
        code = last_error()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
