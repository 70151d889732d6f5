"""Write initramfs archives: the ``newc`` cpio format, deterministic, in plain Python.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel. The kernel also
unpacks several archives one after the other, so ``first.build() + second.build()`` is an initramfs.
"""

import stat
from pathlib import PurePosixPath

__all__ = ("Archive",)

LIMIT = 0xFFFFFFFF  # every header field is eight hexadecimal digits
PADDING = 512  # the block size cpio tools end an archive on; also keeps concatenated archives aligned


class Archive:
    """An initramfs under construction; equal calls give equal bytes.

    Owner and group are root, the time is 0, inodes count from 1. Missing parent directories (0755) are
    added in front, as the kernel creates none. Names are relative to the root; a leading ``/`` is dropped.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._chunks: list[bytes] = []

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file.

        Args:
            name: path in the archive.
            data: the contents, at most 4 GiB - 1.
            mode: permission bits, 0 to 0o7777.

        Raises:
            ValueError: The name is taken or unusable, or a value does not fit; nothing was added.
        """
        self._add(name, stat.S_IFREG | _permissions(mode), data)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory.

        Args:
            name: path in the archive.
            mode: permission bits, 0 to 0o7777.

        Raises:
            ValueError: As for :meth:`file`.
        """
        self._add(name, stat.S_IFDIR | _permissions(mode))

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link.

        Args:
            name: path in the archive.
            target: what it points to, kept as it is; not empty.

        Raises:
            ValueError: As for :meth:`file`, or the target is empty.
        """
        if not target:
            raise ValueError(f"cpio symlink {name!r}: the target is empty")
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, kind: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a device node.

        Args:
            name: path in the archive.
            kind: ``"c"`` for a character, ``"b"`` for a block device.
            major: major number, 0 to 0xFFFFFFFF.
            minor: minor number, 0 to 0xFFFFFFFF.
            mode: permission bits, 0 to 0o7777.

        Raises:
            ValueError: As for :meth:`file`, or the kind or a number is out of range.
        """
        types = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}
        if kind not in types:
            raise ValueError(f"cpio device {name!r}: kind {kind!r} is neither 'c' nor 'b'")
        for field, number in (("major", major), ("minor", minor)):
            if not 0 <= number <= LIMIT:
                raise ValueError(f"cpio device {name!r}: {field} {number} is not in 0..{LIMIT:#x}")
        self._add(name, types[kind] | _permissions(mode), device=(major, minor))

    def build(self) -> bytes:
        """Return the archive with its trailer, padded with zeros to a multiple of 512 bytes.

        More entries may be added afterwards and the archive built again.
        """
        body = b"".join([*self._chunks, _entry("TRAILER!!!", 0, 0, b"", (0, 0))])
        return body + bytes(-len(body) % PADDING)

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        path = PurePosixPath(name.lstrip("/"))
        clean = str(path)
        if clean == "." or ".." in path.parts or "\0" in clean or clean == "TRAILER!!!":
            raise ValueError(f"cpio name {name!r}: empty, with '..' or NUL, or the trailer's name")
        if clean in self._names:
            raise ValueError(f"cpio name {name!r} is already in the archive")
        if len(data) > LIMIT:
            raise ValueError(f"cpio file {name!r}: {len(data)} bytes, the format ends at {LIMIT}")
        for parent in reversed(path.parents[:-1]):
            if str(parent) not in self._names:
                self._append(str(parent), stat.S_IFDIR | 0o755, b"", (0, 0))
        self._append(clean, mode, data, device)

    def _append(self, name: str, mode: int, data: bytes, device: tuple[int, int]) -> None:
        self._names.add(name)
        self._chunks.append(_entry(name, len(self._names), mode, data, device))


def _permissions(mode: int) -> int:
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"cpio mode {mode:#o} is not in 0..0o7777")
    return mode


def _entry(name: str, inode: int, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    """One header, name and data, each padded to four bytes."""
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # magic; ino mode uid gid nlink mtime filesize; dev major/minor; rdev major/minor; namesize; check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    return b"".join((head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)))
