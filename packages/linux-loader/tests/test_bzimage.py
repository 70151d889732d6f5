"""The setup header."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import (
    KernelImage,
    LoaderError,
    MalformedImageError,
    TruncatedImageError,
    UnsupportedProtocolError,
)
from linux_loader._bzimage import check_entry64
from linux_loader.testing import build_bzimage, build_elf

CODE = b"\xf4" * 0x400


def parse(data):
    """The setup header of a file."""
    return KernelImage.from_bytes(data).bzimage


def patched(offset, layout, value, **options):
    """A bzImage with one field changed."""
    out = bytearray(build_bzimage(**options))
    struct.pack_into(layout, out, offset, value)
    return bytes(out)


def test_fields(vmlinux):
    """Every field the loader uses is read from its place."""
    header = parse(build_bzimage(vmlinux, cmdline_size=1000, initrd_addr_max=0x1234_5678))
    assert (header.version, header.setup_size, header.is_64bit, header.relocatable) == (
        0x20F,
        5 * 512,
        True,
        True,
    )
    assert (header.alignment, header.min_alignment, header.pref_address) == (1 << 21, 1 << 21, 1 << 24)
    assert (header.init_size, header.initrd_addr_max, header.cmdline_max) == (1 << 20, 0x1234_5678, 1000)
    assert header.payload_offset == len(CODE)
    assert len(header.raw) == 0x202 + 0x6A - 0x1F1


def test_setup_sects_zero_means_four():
    """The oldest rule of the protocol."""
    assert parse(build_bzimage(setup_sects=0)).setup_size == 5 * 512


def test_a_signature_is_not_code():
    """Bytes after syssize, as sbsign appends, are not loaded; missing padding is tolerated."""
    plain = parse(build_bzimage())
    assert parse(build_bzimage(trailer=b"s" * 1480)).code_size == plain.code_size == 0x400
    assert parse(build_bzimage()[:-5]).code_size == 0x400 - 5


@pytest.mark.parametrize(
    ("offset", "layout", "value", "match"),
    [
        (0x1FE, "<H", 0, "boot_flag is 0x0, must be 0xaa55"),
        (0x206, "<H", 0x1FF, "version is 0x1ff, must be >= 0x200"),
        (0x211, "B", 0, "LOADED_HIGH"),
        (0x230, "<I", 3, "kernel_alignment is 0x3, must be a power of two"),
        (0x235, "B", 32, "min_alignment is 32, at most 31"),
        (0x1F4, "<I", 0, "syssize is 0x0, there is no kernel in the file"),
        (0x248, "<I", 0x401, "payload_offset is 0x401, with payload_length past the end"),
        (0x24C, "<I", 0xFFFF_FFFF, "past the end of the protected-mode code"),
    ],
)
def test_bad_fields(offset, layout, value, match):
    """Each impossible field is named."""
    with pytest.raises(MalformedImageError, match=match):
        parse(patched(offset, layout, value))


@pytest.mark.parametrize("size", [0x206, 0x230, 0x26B, 512 * 5, 512 * 5 + 0x3E0])
def test_truncation(size):
    """A file that ends within the header or the code is truncated."""
    with pytest.raises(TruncatedImageError, match="truncated or damaged"):
        parse(build_bzimage()[:size])


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (0x0202, (0x37FF_FFFF, 255, False, False, 0x10_0000)),
        (0x0205, (0x7FFF_FFFF, 255, True, False, 0x10_0000)),
        (0x0206, (0x7FFF_FFFF, 2047, True, False, 0x10_0000)),
        (0x020A, (0x7FFF_FFFF, 2047, True, False, 0x100_0000)),
        (0x020C, (0x7FFF_FFFF, 2047, True, True, 0x100_0000)),
    ],
)
def test_older_protocols_get_the_defaults(version, expected):
    """Fields newer than the kernel's protocol are not believed (boot.rst, "offset/size ... protocol")."""
    h = parse(build_bzimage(version=version))
    assert (h.initrd_addr_max, h.cmdline_max, h.relocatable, h.is_64bit, h.pref_address) == expected


def test_no_64bit_entry():
    """A 32-bit kernel and one without room for the entry are refused with the reason."""
    with pytest.raises(UnsupportedProtocolError, match=r"XLF_KERNEL_64.*protocol 2.15.*Linux 3.8"):
        check_entry64(parse(build_bzimage(xloadflags=0)))
    with pytest.raises(UnsupportedProtocolError, match="0x200 bytes, the entry is at 0x200"):
        check_entry64(parse(build_bzimage(code=bytes(0x200))))


@given(
    st.lists(st.tuples(st.integers(0x1E0, 0x290), st.integers(0, 255)), max_size=8),
    st.integers(0, 4000),
)
def test_mutated_headers(changes, cut):
    """A damaged bzImage parses into ranges inside the file, or raises LoaderError."""
    elf = build_elf([], entry=0)
    data = bytearray(build_bzimage(elf))
    del data[len(data) - min(cut, len(data) - 1) :]
    for at, value in changes:
        if at < len(data):
            data[at] = value
    with contextlib.suppress(LoaderError):
        header = parse(bytes(data))
        if header is not None:
            assert header.setup_size + header.code_size <= len(data)
            assert header.payload_offset + header.payload_length <= header.code_size
