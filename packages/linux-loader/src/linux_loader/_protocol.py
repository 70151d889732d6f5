"""The choice between the boot protocols a kernel offers."""

from __future__ import annotations

import enum

from linux_loader._elf import ElfInfo
from linux_loader._errors import ForeignArchitectureError, UnsupportedProtocolError
from linux_loader._image import KernelImage
from linux_loader._ranges import GuestRange


class BootProtocol(enum.Enum):
    """How the kernel is entered.

    ``AUTO`` takes the 64-bit protocol for a bzImage and an ELF file that a "Linux" note identifies (unlike
    PVH it carries an RNG seed), or the 32-bit one for such a file of a 32-bit kernel; PVH for any other ELF
    file with its note, else the ELF file's 64-bit entry.
    """

    AUTO = "auto"
    LINUX64 = "linux64"
    LINUX32 = "linux32"
    PVH = "pvh"


def _entry_is_loaded(elf: ElfInfo) -> bool:
    return any(s.memory.contains(GuestRange(elf.entry, 1)) for s in elf.segments)


def choose_protocol(image: KernelImage, wanted: BootProtocol = BootProtocol.AUTO) -> BootProtocol:
    """Settle how an image is entered.

    Args:
        image: The kernel.
        wanted: A protocol, or AUTO to let the image decide.

    Returns:
        LINUX64, LINUX32 or PVH.

    Raises:
        ForeignArchitectureError: The image is one of arm64 or riscv64; see ``load_image``.
        UnsupportedProtocolError: The image has no such entry.
    """
    if image.flat is not None:
        name = {"aarch64": "AArch64", "riscv64": "RISC-V"}[image.flat.arch]
        raise ForeignArchitectureError(f"{name} (an Image, which load_image() loads)")
    elf = image.elf
    if elf is None:
        if wanted is BootProtocol.PVH:
            cure = "unpack it with extract_vmlinux() or vmlinux_from_bzimage()"
            raise UnsupportedProtocolError(
                "PVH", reason="only an ELF vmlinux can carry the PVH note", cure=cure
            )
        if wanted is BootProtocol.AUTO and image.bzimage is not None:
            return BootProtocol.LINUX64 if image.bzimage.is_64bit else BootProtocol.LINUX32
        return wanted
    return _choose_for_elf(elf, wanted)


def _choose_for_elf(elf: ElfInfo, wanted: BootProtocol) -> BootProtocol:
    has_pvh = elf.pvh_entry is not None
    if wanted is BootProtocol.AUTO:
        native = elf.is_linux and _entry_is_loaded(elf)
        linux = BootProtocol.LINUX64 if elf.is_64bit or not native else BootProtocol.LINUX32
        wanted = BootProtocol.PVH if has_pvh and not native else linux
    if wanted is BootProtocol.PVH and not has_pvh:
        cure = "use LINUX64, or a kernel built with CONFIG_PVH=y"
        raise UnsupportedProtocolError("PVH", reason="no XEN_ELFNOTE_PHYS32_ENTRY note (type 18)", cure=cure)
    if wanted is BootProtocol.LINUX32 and elf.is_64bit:
        cure = "use LINUX64, or the bzImage, which can be entered both ways"
        raise UnsupportedProtocolError(
            "the 32-bit boot protocol", reason="the entry of a 64-bit ELF file is 64-bit", cure=cure
        )
    if wanted is BootProtocol.LINUX64 and not elf.is_64bit:
        cure = "use LINUX32, PVH if it has that note, or an x86-64 kernel"
        raise UnsupportedProtocolError(
            "the 64-bit boot protocol", reason="the ELF file is 32-bit (i386)", cure=cure
        )
    return wanted
