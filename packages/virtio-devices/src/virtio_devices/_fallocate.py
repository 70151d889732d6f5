"""fallocate(2), which the os module does not have; only the pure-Python data path uses it."""

import ctypes
import errno
import os

KEEP_SIZE = 1
PUNCH_HOLE = 2
ZERO_RANGE = 16

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Punch or zero a range, keeping the file's size.

    Raises:
        OSError: with the kernel's errno.
    """
    # SAFETY: four integers go in, no pointer does.
    while _fallocate(fd, mode | KEEP_SIZE, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
