"""Bounds-checked views of a kernel file."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct

from linux_loader._errors import ImageError, TruncatedImageError

# Linux 5.14; the mmap module of Python 3.11 does not name it.
_MADV_POPULATE_READ = 22


class Source:
    """A whole file as one read-only buffer: mapped, never copied.

    Every access names what it reads, so that a short file gives a message about the missing structure.
    """

    def __init__(self, data: bytes | bytearray | memoryview | mmap.mmap, name: str) -> None:
        self.name = name
        self._mapping = data if isinstance(data, mmap.mmap) else None
        self.view = memoryview(data).toreadonly().cast("B")

    @classmethod
    def map_file(cls, path: str | os.PathLike[str], *, what: str) -> Source:
        """Map a regular file; anything else, and an empty one, is refused."""
        # O_NONBLOCK: opening a FIFO nobody writes to must not hang.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{what} {os.fspath(path)} is not a regular file", what=what)
            if status.st_size == 0:
                raise ImageError(f"{what} {os.fspath(path)} is empty (0 bytes)", what=what)
            return cls(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), os.fspath(path))
        finally:
            os.close(handle)

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self.view)

    def slice(self, offset: int, size: int, what: str) -> memoryview:
        """Exactly ``size`` bytes at ``offset``, without a copy."""
        if offset + size > self.size:
            raise TruncatedImageError(what, offset=offset, needed=size, available=self.size)
        return self.view[offset : offset + size]

    def unpack(self, layout: struct.Struct, offset: int, what: str) -> tuple[int, ...]:
        """Read one packed structure."""
        return layout.unpack(self.slice(offset, layout.size, what))

    def prefetch(self, offset: int, size: int) -> None:
        """Fault the pages in with one system call instead of thousands of page faults; only a hint."""
        if self._mapping is None or size == 0:
            return
        start = offset - offset % mmap.PAGESIZE
        with contextlib.suppress(OSError):
            self._mapping.madvise(
                _MADV_POPULATE_READ, start, min(size + offset - start, len(self._mapping) - start)
            )

    def close(self) -> None:
        """Release the mapping; buffers cut from it must be gone, else BufferError. Twice is harmless."""
        self.view.release()
        if self._mapping is not None:
            try:
                self._mapping.close()
            except BufferError:
                self.view = memoryview(self._mapping).toreadonly()
                raise
