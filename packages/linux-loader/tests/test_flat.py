"""Headers of arm64 and riscv64 Images, and EFI zboot files."""

import gzip
import struct

import pytest
from linux_loader import (
    Compression,
    DecompressionError,
    ImageHeader,
    KernelImage,
    MalformedImageError,
    TruncatedImageError,
)
from linux_loader.testing import build_image, build_zboot, pack

KINDS = [k for k in Compression if k not in (Compression.LZO, Compression.NONE)]


def flat(data):
    """The header of a file's bytes."""
    return KernelImage.from_bytes(data).flat


@pytest.mark.parametrize(
    ("flags", "big", "page", "anywhere"),
    [
        (0, False, None, False),
        (0xA, False, 4096, True),
        (0x4, False, 16384, False),
        (0xF, True, 65536, True),
    ],
)
def test_flags_of_arm64(flags, big, page, anywhere):
    """Bit 0 endianness, 1-2 page size, 3 placement (booting.rst)."""
    found = flat(build_image("aarch64", text_offset=0x8_0000, image_size=1 << 20, flags=flags))
    assert found == ImageHeader("aarch64", 0x8_0000, 1 << 20, flags, big, page, anywhere)


def test_a_kernel_before_3_17():
    """Without image_size the text_offset is 0x80000, whatever the field says."""
    assert flat(build_image("aarch64", image_size=0, text_offset=7)).text_offset == 0x8_0000


def test_riscv64():
    """Flags have one bit; the rest of what arm64 says there is unknown."""
    found = flat(build_image("riscv64", text_offset=0x20_0000, image_size=1 << 20, flags=0))
    assert found == ImageHeader("riscv64", 0x20_0000, 1 << 20, 0, False, None, False)
    image = KernelImage.from_bytes(build_image("riscv64"))
    assert (image.format, image.compression, image.has_pvh_entry) == ("image", Compression.NONE, False)


@pytest.mark.parametrize("field", [{"text_offset": 1 << 48}, {"text_offset": 100}, {"image_size": 1 << 48}])
def test_impossible_fields(field):
    """Not a multiple of the smallest page, or beyond every physical address."""
    with pytest.raises(MalformedImageError, match="must be a multiple of"):
        flat(build_image("aarch64", **field))


@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_wrapping(arch, kind):
    """Plain, compressed as a whole, in an EFI zboot file, and that compressed: the same Image comes out."""
    image = build_image(arch, bytes(range(256)) * 20)
    for data in (image, pack(image, kind), build_zboot(image, kind), gzip.compress(build_zboot(image, kind))):
        with KernelImage.from_bytes(data) as found:
            assert bytes(found.contents(0, found.size)) == image
            assert found.flat == flat(image)


def test_damaged_zboot():
    """A payload outside the file, of an unknown kind, damaged, or larger than the limit."""
    good = build_zboot(build_image("aarch64", bytes(4000)))
    with pytest.raises(TruncatedImageError, match="EFI zboot payload"):
        KernelImage.from_bytes(good[:-10])
    bad = bytearray(good)
    struct.pack_into("<I", bad, 8, 0xFFFF_FFFF)
    with pytest.raises(TruncatedImageError, match="EFI zboot payload"):
        KernelImage.from_bytes(bad)
    with pytest.raises(DecompressionError, match=r"\('gzip'\) begins with 00 00"):
        KernelImage.from_bytes(good[:256] + bytes(len(good)))
    with pytest.raises(DecompressionError, match="limit of 100 bytes"):
        KernelImage.from_bytes(good, limit=100)
    with pytest.raises(DecompressionError, match="gzip payload"):
        KernelImage.from_bytes(good[:290] + bytes(8) + good[298:])
