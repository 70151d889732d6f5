"""A raw disk image: opened once, locked, and never shared by accident.

The lock is an open-file-description lock on the whole file (fcntl(2), F_OFD_SETLK): exclusive for a writable
image, shared for a read-only one. It belongs to this open file and goes away with it, whatever other code in
the process opens or closes. A writable block device is opened O_EXCL as well, so that a mounted one is
refused.
"""

import errno
import fcntl
import os
import stat
import struct
from types import TracebackType
from typing import final

from virtio_devices._errors import ImageError, ImageLockedError

__all__ = ("SECTOR", "DiskImage")

SECTOR = 512
"""Bytes of a sector, whatever the block size is (VIRTIO 1.2 section 5.2.6)."""
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


def _lock(fd: int, path: str, read_only: bool) -> None:
    kind = fcntl.F_RDLCK if read_only else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise ImageError(
                path, f"cannot be locked: {error.strerror}; pass lock=False to go without", error.errno
            ) from error
        wanted = "shared (read-only)" if read_only else "exclusive (read-write)"
        reason = f"in use: the {wanted} lock is held by someone else; close that VM, or open both read-only"
        raise ImageLockedError(path, reason, error.errno) from error


def _open(path: str, read_only: bool) -> int:
    flags = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (os.O_RDONLY if read_only else os.O_RDWR)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if stat.S_ISBLK(mode) and not read_only:
            flags |= os.O_EXCL
        # Without O_NONBLOCK a FIFO would hold the caller up before it is found to be none of ours.
        return os.open(path, flags)
    except OSError as error:
        cure = {
            errno.EROFS: "; open it read-only",
            errno.EACCES: "; open it read-only or mend its permissions",
        }
        raise ImageError(path, f"{error.strerror}{cure.get(error.errno or 0, '')}", error.errno) from error


def _check(fd: int, path: str) -> int:
    """Size of the image in bytes, if it can be a disk."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise ImageError(path, f"is neither a regular file nor a block device (mode {mode:#o})")
    size = os.lseek(fd, 0, os.SEEK_END)
    if size < SECTOR:
        raise ImageError(
            path, f"holds {size} bytes, at least {SECTOR} are needed; `truncate -s` makes it larger"
        )
    return size


@final
class DiskImage:
    """Owner of an open raw image.

    A size that is no multiple of 512 is rounded down: the tail cannot be addressed by the guest.

    Args:
        path: regular file or block device.
        read_only: open it without the right to write.
        lock: take the lock; False only when another layer guards the image.

    Attributes:
        path: as it was given.
        read_only: whether it was opened without the right to write.
        capacity: in whole sectors of 512 bytes.
        hidden: bytes of the tail that is no whole sector, 0 to 511.

    Raises:
        ImageLockedError: another open file holds a conflicting lock.
        ImageError: it cannot be opened, or is smaller than one sector; names the path.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, lock: bool = True) -> None:
        self.path = os.fspath(path)
        self.read_only = read_only
        self._fd = _open(self.path, read_only)
        try:
            size = _check(self._fd, self.path)
            if lock:
                _lock(self._fd, self.path, read_only)
        except BaseException:
            os.close(self._fd)
            raise
        self.capacity, self.hidden = divmod(size, SECTOR)

    @property
    def fd(self) -> int:
        """The file descriptor; stays owned by this object.

        Raises:
            ImageError: after close().
        """
        if self._fd < 0:
            raise ImageError(self.path, "image is closed", errno.EBADF)
        return self._fd

    @property
    def block_size(self) -> int:
        """Preferred I/O size of the host in bytes, a power of two from 512 to 65536; a hint."""
        size = os.fstat(self.fd).st_blksize
        return size if SECTOR <= size <= 65536 and size & (size - 1) == 0 else 4096

    def close(self) -> None:
        """Close the file and thereby drop the lock; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "DiskImage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
