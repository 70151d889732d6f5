"""The header of an arm64 or riscv64 ``Image``, and the EFI zboot wrapper around one.

Formats: Documentation/arch/arm64/booting.rst, Documentation/arch/riscv/boot-image-header.rst and
drivers/firmware/efi/libstub/zboot-header.S of Linux.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import MappingProxyType

from attrs import frozen

from linux_loader._compression import Compression, decompress_chunks, detect_compression
from linux_loader._errors import DecompressionError, MalformedImageError
from linux_loader._formats import ARM64_MAGIC, RISCV_MAGIC, flat_magic
from linux_loader._source import Source

HEADER_SIZE = 64

_FIELDS = struct.Struct("<8xQQQ")  # text_offset, image_size, flags
_ZBOOT = struct.Struct("<2s2x4sII8x32s")
_PAGE_SIZES = (None, 4096, 16384, 65536)
# What kernels before 3.17 mean, whose header says nothing (booting.rst, "image_size").
_OLD_TEXT_OFFSET = 0x8_0000


@frozen
class ImageHeader:
    """What an arm64 or riscv64 Image says of itself.

    Attributes:
        arch: ``"aarch64"`` or ``"riscv64"``.
        text_offset: Bytes from a 2 MiB boundary to where the Image goes.
        image_size: Bytes of RAM it needs from its first byte on, BSS included; 0 in kernels before 3.17.
        flags: As in the file.
        big_endian: The kernel runs big-endian; its first instructions switch over.
        page_size: 4096, 16384 or 65536 bytes, None when the header does not say (riscv64: never).
        placed_anywhere: RAM below the Image is usable; otherwise it has to lie close to the start of RAM.
    """

    arch: str
    text_offset: int
    image_size: int
    flags: int
    big_endian: bool
    page_size: int | None
    placed_anywhere: bool


def _arm64(text_offset: int, image_size: int, flags: int) -> ImageHeader:
    if image_size == 0:
        # The endianness of text_offset is unknown there, so its value is not to be believed.
        return ImageHeader("aarch64", _OLD_TEXT_OFFSET, 0, 0, False, None, False)
    return ImageHeader(
        "aarch64", text_offset, image_size, flags,
        big_endian=bool(flags & 1), page_size=_PAGE_SIZES[flags >> 1 & 3], placed_anywhere=bool(flags & 8),
    )  # fmt: skip


def _riscv64(text_offset: int, image_size: int, flags: int) -> ImageHeader:
    return ImageHeader(
        "riscv64", text_offset, image_size, flags,
        big_endian=bool(flags & 1), page_size=None, placed_anywhere=False,
    )  # fmt: skip


_KINDS: MappingProxyType[bytes, Callable[[int, int, int], ImageHeader]] = MappingProxyType(
    {ARM64_MAGIC: _arm64, RISCV_MAGIC: _riscv64}
)


def parse_flat(source: Source) -> ImageHeader:
    """Check the header of a file for which :func:`is_flat` is true.

    Raises:
        TruncatedImageError: The file ends inside the header.
        MalformedImageError: A field is impossible.
    """
    source.slice(0, HEADER_SIZE, "Image header")
    text_offset, image_size, flags = source.unpack(_FIELDS, 0, "Image header")
    header = _KINDS[flat_magic(source)](text_offset, image_size, flags)
    for field, value, unit in (("text_offset", header.text_offset, 4096), ("image_size", image_size, 1)):
        if value % unit or value >= 1 << 48:
            rule = f"must be a multiple of {unit} below 2^48"
            raise MalformedImageError("Image header", field=field, value=value, rule=rule)
    return header


def unpack_zboot(source: Source, limit: int) -> bytearray:
    """Unpack the Image inside an EFI zboot file.

    Raises:
        TruncatedImageError: The file ends before the header or the payload does.
        DecompressionError: The payload is of an unknown kind, damaged, or unpacks to more than ``limit``.
    """
    _, _, start, size, named = _ZBOOT.unpack(source.slice(0, _ZBOOT.size, "EFI zboot header"))
    payload = source.slice(start, size, "EFI zboot payload")
    kind = detect_compression(payload[:16])
    if kind in (None, Compression.NONE):
        shown = named.split(b"\0")[0].decode("ascii", "replace")
        reason = f"the payload at {start:#x} ({shown!r}) begins with {bytes(payload[:8]).hex(' ')}"
        raise DecompressionError("EFI zboot", reason=reason)
    unpacked = bytearray()
    for chunk in decompress_chunks(payload, kind, limit=limit):
        unpacked += chunk
    return unpacked
