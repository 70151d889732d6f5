"""Unpacking a bzImage into an ELF file on disk: for QEMU's PVH entry, and to pay for it only once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from linux_loader._compression import DEFAULT_LIMIT
from linux_loader._image import KernelImage

Progress = Callable[[int, int], None]


def vmlinux_from_bzimage(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    limit: int = DEFAULT_LIMIT,
    progress: Progress | None = None,
) -> int:
    """Write the ELF kernel inside a bzImage to a file.

    The file appears under its name only when it is whole and checked; nobody ever sees a part of it.

    Args:
        src: The bzImage.
        dst: The ELF file to create or replace, mode 0644 less the umask.
        limit: Most bytes it may unpack to.
        progress: Called with (bytes written, bytes in all) after each piece.

    Returns:
        The size of the new file in bytes.

    Raises:
        ImageError: ``src`` is not a bzImage with a loadable ELF kernel inside; ``dst`` is unchanged.
        OSError: A file cannot be read or written; ``dst`` is unchanged.
    """
    import tempfile  # noqa: PLC0415 - with all that it imports, half as much as the rest of this package

    target = Path(dst)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out, KernelImage.open(src) as image:
            total, chunks = image.vmlinux_chunks(limit=limit)
            done = 0
            for chunk in chunks:
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
            os.fchmod(out.fileno(), 0o644 & ~_umask())
        KernelImage.open(temporary).close()
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return total


def _umask() -> int:
    """The process's umask, read without the set-and-restore race of os.umask()."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o022
