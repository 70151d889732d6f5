"""By what a kernel file is recognised; the module that reads a format loads for a file that has it.

Magic numbers: gABI chapter 4; Documentation/arch/x86/boot.rst; Documentation/arch/arm64/booting.rst,
Documentation/arch/riscv/boot-image-header.rst; drivers/firmware/efi/libstub/zboot-header.S of Linux.
"""

from __future__ import annotations

from linux_loader._source import Source

ARM64_MAGIC = b"ARM\x64"
RISCV_MAGIC = b"RSC\x05"
FLAT_MAGIC_OFFSET = 0x38
BZIMAGE_MAGIC_OFFSET = 0x202


def is_elf(source: Source) -> bool:
    """Tell whether it is an ELF file."""
    return bytes(source.view[:4]) == b"\x7fELF"


def is_bzimage(source: Source) -> bool:
    """Tell whether the file carries the setup header's magic number."""
    return bytes(source.view[BZIMAGE_MAGIC_OFFSET : BZIMAGE_MAGIC_OFFSET + 4]) == b"HdrS"


def flat_magic(source: Source) -> bytes:
    """What the file has where an Image has its magic number."""
    return bytes(source.view[FLAT_MAGIC_OFFSET : FLAT_MAGIC_OFFSET + 4])


def is_flat(source: Source) -> bool:
    """Tell whether the file has the magic number of an Image."""
    return flat_magic(source) in (ARM64_MAGIC, RISCV_MAGIC)


def is_zboot(source: Source) -> bool:
    """Tell whether the file is an EFI program around a packed Image."""
    return bytes(source.view[:2]) == b"MZ" and bytes(source.view[4:8]) == b"zimg"
