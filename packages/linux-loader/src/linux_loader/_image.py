"""A kernel file, whatever its format."""

from __future__ import annotations

import contextlib
import os
import struct
from types import TracebackType
from typing import TYPE_CHECKING, Self

from linux_loader._compression import DEFAULT_LIMIT, Compression, decompress_chunks, detect_compression
from linux_loader._errors import (
    DecompressionError,
    ForeignArchitectureError,
    ImageError,
    MalformedImageError,
    TruncatedImageError,
    UnknownFormatError,
)
from linux_loader._formats import is_bzimage, is_elf, is_flat, is_zboot
from linux_loader._source import Source

if TYPE_CHECKING:
    from linux_loader._bzimage import SetupHeader
    from linux_loader._elf import ElfInfo
    from linux_loader._flat import ImageHeader

_PLAIN_BOOT_HINT = "give a Linux vmlinux (ELF), bzImage or Image"


def _describe(source: Source) -> str:
    head = bytes(source.view[:16])
    if head.startswith(b"#!"):
        return "a script"
    if head.startswith(b"\xd0\x0d\xfe\xed"):
        return "a flattened device tree"
    if head.startswith((b"070701", b"070702")):
        return "a cpio archive (an initramfs?)"
    if head.startswith(b"!<arch>"):
        return "an ar archive (a Debian package?)"
    if head.startswith(b"MZ"):
        return "an EFI program that is no bzImage"
    return f"a file of {source.size} bytes that begins with {head.hex(' ')}"


def _refuse_foreign(source: Source) -> None:
    """Name the formats of processors that no loader here knows."""
    if bytes(source.view[0x24:0x28]) == b"\x18\x28\x6f\x01":
        raise ForeignArchitectureError("32-bit ARM (a zImage: magic 0x016f2818 at 0x24)")
    if bytes(source.view[:4]) == b"\x27\x05\x19\x56":
        raise ForeignArchitectureError("a U-Boot machine (a uImage: magic 0x27051956)")


def _payload_size(payload: memoryview, kind: Compression) -> int:
    """The unpacked size, which Linux's build appends (gzip ends with it anyway) as 4 bytes, little-endian."""
    if len(payload) < 8:
        raise MalformedImageError(
            "bzImage header", field="payload_length", value=len(payload), rule="less than 8"
        )
    if kind is Compression.NONE:
        return len(payload)
    (size,) = struct.unpack("<I", payload[-4:])
    return int(size)


def _unpack_whole(source: Source, limit: int) -> bytearray | None:
    """What a file compressed as a whole, or an EFI zboot file, holds; None when it is neither."""
    if is_zboot(source):
        return _unpack_zboot(source, limit)
    kind = detect_compression(source.view[:16])
    if kind is None or kind is Compression.NONE:
        return None
    unpacked = bytearray()
    for chunk in decompress_chunks(source.view, kind, limit=limit):
        unpacked += chunk
    # A packed zboot file is what some build systems ship.
    inner = Source(unpacked, source.name)
    return _unpack_zboot(inner, limit) if is_zboot(inner) else unpacked


def _unpack_zboot(source: Source, limit: int) -> bytearray:
    from linux_loader._flat import unpack_zboot  # noqa: PLC0415

    return unpack_zboot(source, limit)


class KernelImage:
    """A checked kernel file, mapped and not yet copied.

    Use it as a context manager, or call :meth:`close`. The file must not shrink while open (see README).

    Attributes:
        elf: What an ELF kernel holds, else None.
        bzimage: The setup header of a bzImage, else None.
        flat: The header of an arm64 or riscv64 Image, else None.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.elf: ElfInfo | None = None
        self.bzimage: SetupHeader | None = None
        self.flat: ImageHeader | None = None
        # One format's code is all that one kernel needs.
        if is_elf(source):
            from linux_loader._elf import parse_elf  # noqa: PLC0415

            self.elf = parse_elf(source)
        elif is_bzimage(source):
            from linux_loader._bzimage import parse_setup_header  # noqa: PLC0415

            self.bzimage = parse_setup_header(source)
        elif is_flat(source):
            from linux_loader._flat import parse_flat  # noqa: PLC0415

            self.flat = parse_flat(source)
        else:
            _refuse_foreign(source)
            raise UnknownFormatError(_describe(source), cure=_PLAIN_BOOT_HINT)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> KernelImage:
        """Map a kernel file and check it.

        A file compressed as a whole (``vmlinux.gz``, ``Image.zst``, …), or an Image in an EFI zboot file, is
        unpacked into memory first.

        Args:
            path: An ELF vmlinux, a bzImage, or an arm64 or riscv64 Image, perhaps compressed.
            limit: Most bytes a compressed file may unpack to.

        Returns:
            The open image.

        Raises:
            ImageError: Empty, truncated, malformed, unknown, or of another architecture.
            OSError: The file cannot be opened or mapped.
        """
        return cls._checked(Source.map_file(path, what="kernel image"), limit)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, *, limit: int = DEFAULT_LIMIT) -> KernelImage:
        """Check a kernel that is already in memory; the buffer is used in place.

        Args:
            data: The whole file.
            limit: Most bytes a compressed file may unpack to.

        Returns:
            The open image.

        Raises:
            ImageError: As for :meth:`open`.
        """
        if len(data) == 0:
            raise ImageError("kernel image is empty (0 bytes)", what="kernel image")
        return cls._checked(Source(data, "<bytes>"), limit)

    @classmethod
    def _checked(cls, source: Source, limit: int) -> KernelImage:
        try:
            unpacked = _unpack_whole(source, limit)
            if unpacked is None:
                return cls(source)
        except BaseException:
            # The traceback still holds views of the mapping; the last one to go unmaps it.
            with contextlib.suppress(BufferError):
                source.close()
            raise
        name = source.name
        source.close()
        return cls(Source(unpacked, f"{name} (unpacked)"))

    @property
    def format(self) -> str:
        """``"elf"``, ``"bzimage"`` or ``"image"``."""
        if self.flat is not None:
            return "image"
        return "elf" if self.elf is not None else "bzimage"

    @property
    def name(self) -> str:
        """The path the image was opened from."""
        return self._source.name

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self._source.size

    @property
    def has_pvh_entry(self) -> bool:
        """An ELF kernel with the PVH note; a bzImage must be unpacked to know."""
        return self.elf is not None and self.elf.pvh_entry is not None

    @property
    def compression(self) -> Compression:
        """How the payload is packed; NONE for an ELF kernel or an Image.

        Raises:
            DecompressionError: A bzImage whose payload bears no known magic number.
        """
        if self.bzimage is None:
            return Compression.NONE
        return self._payload()[1]

    def contents(self, offset: int, size: int) -> memoryview:
        """Bytes of the file, without a copy, paged in ahead.

        Args:
            offset: First byte, 0 or more.
            size: Number of bytes.

        Returns:
            A read-only view; release it before :meth:`close`.

        Raises:
            TruncatedImageError: The file is shorter.
        """
        if min(offset, size) < 0:
            raise TruncatedImageError("kernel image", offset=offset, needed=size, available=self.size)
        self._source.prefetch(offset, size)
        return self._source.slice(offset, size, "kernel image")

    def _payload(self) -> tuple[memoryview, Compression]:
        header = self.bzimage
        if header is None or header.payload_length == 0:
            reason = (
                "the file is no bzImage, or older than protocol 2.08, which first says where the payload is"
            )
            raise DecompressionError("bzImage", reason=reason)
        payload = self.contents(header.setup_size + header.payload_offset, header.payload_length)
        kind = detect_compression(payload[:16])
        if kind is None:
            raise DecompressionError("bzImage", reason=f"unknown magic number {bytes(payload[:8]).hex(' ')}")
        return payload, kind

    def vmlinux_chunks(self, *, limit: int = DEFAULT_LIMIT) -> tuple[int, VmlinuxChunks]:
        """Unpack a bzImage's kernel piece by piece.

        Args:
            limit: Most bytes it may unpack to.

        Returns:
            The total size the file announces, and an iterator of pieces that adds up to exactly that.

        Raises:
            DecompressionError: No payload, an unsupported or damaged one, or one over the limit.
        """
        payload, kind = self._payload()
        total = _payload_size(payload, kind)
        if total > limit:
            reason = f"it announces {total} bytes, more than the limit of {limit}; raise it if that is right"
            raise DecompressionError(kind.value, reason=reason)
        # The gzip trailer belongs to its stream; for the others the appended size is not part of it.
        stream = payload if kind in (Compression.GZIP, Compression.NONE) else payload[:-4]
        return total, VmlinuxChunks(stream, kind, total)

    def extract_vmlinux(self, *, limit: int = DEFAULT_LIMIT) -> KernelImage:
        """Unpack the ELF kernel inside a bzImage into memory.

        Args:
            limit: Most bytes it may unpack to.

        Returns:
            A new image that no longer needs this one; an ELF image returns itself.

        Raises:
            DecompressionError: As for :meth:`vmlinux_chunks`.
            ImageError: The payload is not a loadable ELF kernel.
        """
        if self.elf is not None:
            return self
        _, chunks = self.vmlinux_chunks(limit=limit)
        unpacked = bytearray()
        for chunk in chunks:
            unpacked += chunk
        return KernelImage(Source(unpacked, f"{self.name} (vmlinux)"))

    def close(self) -> None:
        """Unmap the file. Closing twice is harmless.

        Raises:
            BufferError: A view from :meth:`contents` is still in use; nothing is closed.
        """
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BufferError:
            if error is None:
                raise
            # The traceback in flight holds a view; the mapping goes with it, the real error stays visible.

    def __repr__(self) -> str:
        return f"<KernelImage {self.format} {self.name!r} of {self.size} bytes>"


class VmlinuxChunks:
    """Pieces of an unpacked kernel that add up to the size the bzImage announced, or raise."""

    def __init__(self, stream: memoryview, kind: Compression, total: int) -> None:
        self._chunks = decompress_chunks(stream, kind, limit=total)
        self._kind = kind
        self._missing = total

    def __iter__(self) -> VmlinuxChunks:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not chunk:
            if self._missing:
                reason = f"the stream ends {self._missing} bytes short of the announced size"
                raise DecompressionError(self._kind.value, reason=reason)
            raise StopIteration
        self._missing -= len(chunk)
        return chunk
