"""Formats, files and payloads."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import (
    Compression,
    DecompressionError,
    ForeignArchitectureError,
    ImageError,
    KernelImage,
    LoaderError,
    TruncatedImageError,
    UnknownFormatError,
)
from linux_loader.testing import build_bzimage, pack

KINDS = [k for k in Compression if k is not Compression.LZO]


@given(st.binary(max_size=700))
def test_arbitrary_bytes(data):
    """Random bytes raise LoaderError; they are never a kernel by chance."""
    with pytest.raises(LoaderError):
        KernelImage.from_bytes(data)


@given(
    st.sampled_from([b"\x7fELF\x02\x01\x01", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"]),
    st.binary(max_size=300),
)
def test_arbitrary_bytes_after_a_magic_number(magic, data):
    """A promising start does not help."""
    with pytest.raises(LoaderError):
        KernelImage.from_bytes(magic + data)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (b"", ImageError, r"empty \(0 bytes\)"),
        (b"#!/bin/sh\n", UnknownFormatError, "found a script; give a Linux vmlinux"),
        (b"\xd0\x0d\xfe\xed" + bytes(60), UnknownFormatError, "a flattened device tree"),
        (b"070701" + bytes(60), UnknownFormatError, "cpio archive"),
        (b"!<arch>\n", UnknownFormatError, "an ar archive"),
        (b"MZ" + bytes(600), UnknownFormatError, "an EFI program that is no bzImage"),
        (b"hello", UnknownFormatError, "5 bytes that begins with 68 65 6c 6c 6f"),
        (bytes(0x38) + b"ARM\x64", TruncatedImageError, "Image header needs 64 bytes"),
        (b"MZ\0\0zimg" + bytes(60), DecompressionError, "EFI zboot payload cannot be"),
        (b"MZ\0\0zimg" + bytes(40), TruncatedImageError, "EFI zboot header needs"),
        (bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(60), ForeignArchitectureError, "32-bit ARM"),
        (b"\x27\x05\x19\x56" + bytes(60), ForeignArchitectureError, "uImage"),
        (b"\x7fELF", TruncatedImageError, "ELF identification needs 16 bytes"),
    ],
)
def test_refusals_say_what_was_found(data, error, match):
    """Formats people give by mistake are recognised."""
    with pytest.raises(error, match=match):
        KernelImage.from_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_payload_of_each_compression(vmlinux, kind):
    """The ELF kernel inside comes out byte for byte, whatever packed it."""
    image = KernelImage.from_bytes(build_bzimage(vmlinux, compression=kind))
    assert image.compression is kind
    unpacked = image.extract_vmlinux()
    assert bytes(unpacked.contents(0, unpacked.size)) == vmlinux
    assert unpacked.has_pvh_entry
    assert not image.has_pvh_entry
    assert unpacked.extract_vmlinux() is unpacked


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not Compression.NONE])
def test_whole_file_compressed(tmp_path, vmlinux, kind):
    """vmlinux.gz and its like open directly."""
    path = tmp_path / "vmlinux.packed"
    path.write_bytes(pack(vmlinux, kind))
    with KernelImage.open(path) as image:
        assert (image.format, image.size) == ("elf", len(vmlinux))
        assert image.name.endswith("(unpacked)")
    with pytest.raises(DecompressionError, match="limit of 100 bytes"):
        KernelImage.open(path, limit=100)


def test_the_announced_size_is_binding(vmlinux):
    """A payload shorter or longer than its size field says, or above the limit, is refused."""
    short = KernelImage.from_bytes(build_bzimage(vmlinux, announced=len(vmlinux) + 1))
    with pytest.raises(DecompressionError, match="1 bytes short of the announced size"):
        short.extract_vmlinux()
    long = KernelImage.from_bytes(build_bzimage(vmlinux, announced=100))
    with pytest.raises(DecompressionError, match="exceeds the limit of 100 bytes"):
        long.extract_vmlinux()
    with pytest.raises(DecompressionError, match="announces 100 bytes, more than the limit of 99"):
        long.extract_vmlinux(limit=99)


def test_payloads_that_are_none(vmlinux):
    """No payload, an unknown one, LZO, and one that is no kernel."""
    with pytest.raises(DecompressionError, match=r"older than protocol 2\.08"):
        KernelImage.from_bytes(build_bzimage()).extract_vmlinux()
    data = bytearray(build_bzimage(vmlinux))
    data[5 * 512 + 0x400 : 5 * 512 + 0x408] = b"unknown!"
    with pytest.raises(DecompressionError, match="unknown magic number 75 6e 6b"):
        KernelImage.from_bytes(data).extract_vmlinux()
    data[5 * 512 + 0x400 : 5 * 512 + 0x409] = b"\x89LZO\x00\r\n\x1a\n"
    with pytest.raises(DecompressionError, match="lzo is not supported"):
        KernelImage.from_bytes(data).extract_vmlinux()
    with pytest.raises(UnknownFormatError, match="begins with 78 78"):
        KernelImage.from_bytes(build_bzimage(b"x" * 100)).extract_vmlinux()
    assert KernelImage.from_bytes(vmlinux).compression is Compression.NONE


def test_a_payload_of_nothing(vmlinux):
    """A payload length below eight bytes cannot hold a stream and its size."""
    data = bytearray(build_bzimage(vmlinux))
    struct.pack_into("<I", data, 0x24C, 4)
    with pytest.raises(ImageError, match="payload_length is 0x4, less than 8"):
        KernelImage.from_bytes(data).extract_vmlinux()


def test_files(tmp_path, vmlinux):
    """Files are mapped, closed, and refused when empty or absent."""
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux)
    image = KernelImage.open(path)
    view = image.contents(0, 4)
    with pytest.raises(BufferError):
        image.close()
    assert bytes(image.contents(1, 3)) == b"ELF"
    view.release()
    assert repr(image) == f"<KernelImage elf {str(path)!r} of {len(vmlinux)} bytes>"
    with pytest.raises(TruncatedImageError, match="needs 9 bytes"):
        image.contents(len(vmlinux) - 8, 9)
    with pytest.raises(TruncatedImageError, match="file offset -0x1"):
        image.contents(-1, 1)
    image.close()
    image.close()
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError, match=r"empty is empty \(0 bytes\)"):
        KernelImage.open(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        KernelImage.open(tmp_path / "absent")


def test_the_real_error_survives_the_context_manager(tmp_path, vmlinux):
    """A view that is still held does not hide the error that ends the block."""
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux)
    held = []

    def use():
        with KernelImage.open(path) as image:
            held.append(image.contents(0, 4))
            raise KeyError("the real one")

    with pytest.raises(KeyError, match="the real one"):
        use()
    assert bytes(held[0]) == b"\x7fELF"
    with pytest.raises(BufferError), KernelImage.open(path) as image:
        held.append(image.contents(0, 4))
