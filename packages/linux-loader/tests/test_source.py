"""Bounds-checked views of files."""

import os
import struct

import pytest
from linux_loader import ImageError, TruncatedImageError
from linux_loader._source import Source


def test_bounds():
    """A slice is exact or raises with offset, need and length."""
    source = Source(b"abcdef", "x")
    assert bytes(source.slice(2, 4, "tail")) == b"cdef"
    with pytest.raises(TruncatedImageError, match="tail needs 5 bytes at file offset 0x2") as caught:
        source.slice(2, 5, "tail")
    assert (caught.value.offset, caught.value.needed, caught.value.available) == (2, 5, 6)
    assert source.unpack(struct.Struct("<H"), 0, "word") == (0x6261,)


def test_only_regular_files_are_mapped(tmp_path):
    """A FIFO without a writer, a folder and a device are refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, "/dev/null"):
        with pytest.raises(ImageError, match=f"kernel image {path} is not a regular file"):
            Source.map_file(path, what="kernel image")


def test_prefetch_is_only_a_hint(tmp_path):
    """Prefetching any part of a mapped file, or of bytes, changes nothing."""
    path = tmp_path / "f"
    path.write_bytes(bytes(10_000))
    source = Source.map_file(path, what="file")
    for offset, size in ((0, 0), (0, 10_000), (5000, 1), (9999, 1)):
        source.prefetch(offset, size)
    assert source.size == 10_000
    source.close()
    Source(b"abc", "x").prefetch(0, 3)
