"""Each compression there and back, and under attack."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import Compression, DecompressionError, detect_compression
from linux_loader._compression import decompress_chunks
from linux_loader.testing import pack

KINDS = [k for k in Compression if k is not Compression.LZO]
PACKED = [k for k in KINDS if k is not Compression.NONE]
SAMPLE = bytes(range(256)) * 64 + bytes(20_000)


def unpack(data, kind, limit=1 << 24):
    """The whole output."""
    return b"".join(decompress_chunks(memoryview(data), kind, limit=limit))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=3000))
def test_round_trip(kind, data):
    """What was packed is unpacked."""
    assert unpack(pack(data, kind), kind) == data


@pytest.mark.parametrize("kind", PACKED)
def test_detection_and_trailing_bytes(kind):
    """The magic number names the kind; bytes after the stream do not matter where it has an end mark."""
    stream = pack(SAMPLE, kind)
    assert detect_compression(stream) is kind
    if kind not in (Compression.LZ4, Compression.ZSTD):
        assert unpack(stream + b"\xff" * 64, kind) == SAMPLE


@pytest.mark.parametrize("kind", PACKED)
def test_limit(kind):
    """A bomb stops at the limit."""
    bomb = pack(bytes(9 << 20), kind)
    with pytest.raises(DecompressionError, match="exceeds the limit of 4096 bytes"):
        unpack(bomb, kind, limit=4096)
    assert len(unpack(bomb, kind, limit=9 << 20)) == 9 << 20


@pytest.mark.parametrize("kind", PACKED)
@given(
    cut=st.integers(0, 200),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
def test_damage(kind, cut, flips):
    """A cut or changed stream gives bytes within the limit or DecompressionError, nothing else."""
    stream = bytearray(pack(SAMPLE, kind))
    del stream[len(stream) - min(cut, len(stream)) :]
    for at, xor in flips:
        if stream:
            stream[at % len(stream)] ^= xor
    with contextlib.suppress(DecompressionError):
        assert len(unpack(bytes(stream), kind, limit=1 << 20)) <= 1 << 20


@pytest.mark.parametrize("kind", KINDS)
@given(junk=st.binary(max_size=200))
def test_junk(kind, junk):
    """Arbitrary bytes after the magic number."""
    head = pack(b"x", kind)[:6]
    with contextlib.suppress(DecompressionError):
        assert len(unpack(head + junk, kind, limit=1 << 20)) <= 1 << 20


def test_lzo_is_named():
    """LZO is recognised and refused with a cure."""
    magic = b"\x89LZO\x00\r\n\x1a\n"
    assert detect_compression(magic) is Compression.LZO
    with pytest.raises(DecompressionError, match="lzo is not supported; unpack the kernel"):
        unpack(magic, Compression.LZO)
    with pytest.raises(ValueError, match="cannot write lzo"):
        pack(b"", Compression.LZO)
    assert detect_compression(b"") is None
    assert detect_compression(b"\0" * 16) is None


def test_lzma_with_a_huge_dictionary():
    """A header that asks for 4 GiB of dictionary is refused before it is allocated."""
    stream = bytearray(pack(SAMPLE, Compression.LZMA))
    stream[1:5] = b"\xff\xff\xff\xff"
    with pytest.raises(DecompressionError, match="lzma payload cannot be decompressed"):
        unpack(bytes(stream), Compression.LZMA)
