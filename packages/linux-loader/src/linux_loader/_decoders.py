"""One decoder per compression, on the libraries that know it.

Every decoder is a generator of chunks: neither a hostile file nor a hostile size field makes the loader hold
more than the limit plus one chunk. Formats: ``scripts/Makefile.lib`` and ``lib/decompress*.c`` of Linux.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.block  # type: ignore[import-untyped]
import zstandard

from linux_loader._compression import Compression

CHUNK = 1 << 20

# Kernels are packed with dictionaries of up to 128 MiB (xz and zstd -22); liblzma adds its own tables.
_MEMORY_LIMIT = 192 << 20
_LZ4_LEGACY_MAGIC = 0x184C2102
_LZ4_LEGACY_BLOCK = 8 << 20


class _PullDecoder(Protocol):
    """The interface bz2 and lzma decompressors share."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing comes out before more is given."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return what comes out next, at most `max_length` bytes; the rest is kept."""


def _pull(decoder: _PullDecoder, data: memoryview) -> Iterator[bytes]:
    offset = 0
    while not decoder.eof:
        block = b""
        if decoder.needs_input:
            block = bytes(data[offset : offset + CHUNK])
            if not block:
                raise EOFError(f"the stream of {len(data)} bytes ends early")
            offset += len(block)
        yield decoder.decompress(block, CHUNK)


def _gunzip(data: memoryview) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    offset = 0
    while not decoder.eof:
        block = decoder.unconsumed_tail
        if not block:
            block = bytes(data[offset : offset + CHUNK])
            if not block:
                raise EOFError(f"the stream of {len(data)} bytes ends early")
            offset += len(block)
        yield decoder.decompress(block, CHUNK)


def _unzstd(data: memoryview) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=_MEMORY_LIMIT)
    with decoder.stream_reader(data, read_across_frames=True, closefd=False) as reader:
        while chunk := reader.read(CHUNK):
            yield chunk


def _unlz4_legacy(data: memoryview) -> Iterator[bytes]:
    """Decode `lz4 -l`: a magic number, then blocks of at most 8 MiB, each after its packed length (le32)."""
    offset = 4
    while offset + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if size == _LZ4_LEGACY_MAGIC:  # streams may be concatenated (lib/decompress_unlz4.c)
            continue
        if size > len(data) - offset:
            raise EOFError(
                f"a block of {size} bytes at {offset:#x} reaches past the payload's {len(data)} bytes"
            )
        yield lz4.block.decompress(data[offset : offset + size], uncompressed_size=_LZ4_LEGACY_BLOCK)
        offset += size


def _unxz(data: memoryview) -> Iterator[bytes]:
    return _pull(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT), data)


def _unlzma(data: memoryview) -> Iterator[bytes]:
    return _pull(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_LIMIT), data)


def _bunzip2(data: memoryview) -> Iterator[bytes]:
    return _pull(bz2.BZ2Decompressor(), data)


def _stored(data: memoryview) -> Iterator[bytes]:
    return (bytes(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))


DECODERS: dict[Compression, Callable[[memoryview], Iterator[bytes]]] = {
    Compression.NONE: _stored,
    Compression.GZIP: _gunzip,
    Compression.BZIP2: _bunzip2,
    Compression.LZMA: _unlzma,
    Compression.XZ: _unxz,
    Compression.LZ4: _unlz4_legacy,
    Compression.ZSTD: _unzstd,
}

DECODE_ERRORS = (
    EOFError, MemoryError, OSError, OverflowError, ValueError,
    lz4.block.LZ4BlockError, lzma.LZMAError, zlib.error, zstandard.ZstdError,
)  # fmt: skip
