"""The compressions a kernel payload may use, each recognised here and decompressed in bounded steps.

Formats: ``scripts/Makefile.lib`` and ``lib/decompress*.c`` of Linux.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from linux_loader._errors import DecompressionError

DEFAULT_LIMIT = 1 << 30


class Compression(enum.Enum):
    """How a kernel payload is packed; the value is the name used in messages."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"


_MAGICS = (
    (b"\x7fELF", Compression.NONE),
    (b"\x1f\x8b", Compression.GZIP),
    (b"\x1f\x9e", Compression.GZIP),
    (b"BZh", Compression.BZIP2),
    (b"\x5d\x00\x00", Compression.LZMA),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x89LZO\x00\r\n\x1a\n", Compression.LZO),
    (b"\x02\x21\x4c\x18", Compression.LZ4),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)


def detect_compression(head: bytes | memoryview) -> Compression | None:
    """Tell a payload's compression from its first bytes.

    Args:
        head: At least the first 9 bytes of the payload; fewer may give None.

    Returns:
        The compression, ``Compression.NONE`` for a bare ELF file, or None when no magic number matches.
    """
    start = bytes(head[:16])
    return next((kind for magic, kind in _MAGICS if start.startswith(magic)), None)


def decompress_chunks(data: memoryview, kind: Compression, *, limit: int = DEFAULT_LIMIT) -> Iterator[bytes]:
    """Decompress ``data`` piece by piece.

    Args:
        data: The compressed stream. What follows its end is ignored, but LZ4 has no end mark and zstd may
            go on with another frame.
        kind: The compression.
        limit: Most bytes that may come out.

    Yields:
        Non-empty pieces of the output.

    Raises:
        DecompressionError: The stream is damaged, unsupported (LZO), or yields more than ``limit`` bytes.
    """
    # The libraries take longer to import than an unpacked kernel takes to load.
    from linux_loader._decoders import DECODE_ERRORS, DECODERS  # noqa: PLC0415

    decoder = DECODERS.get(kind)
    if decoder is None:
        raise DecompressionError(
            kind.value,
            reason=f"{kind.value} is not supported; unpack the kernel with scripts/extract-vmlinux first",
        )
    total = 0
    try:
        for chunk in decoder(data):
            total += len(chunk)
            if total > limit:
                raise DecompressionError(kind.value, reason=f"the output exceeds the limit of {limit} bytes")
            if chunk:
                yield chunk
    except DECODE_ERRORS as error:
        raise DecompressionError(kind.value, reason=f"{type(error).__name__}: {error}") from error
