"""The choice between the boot protocols a kernel offers."""

from __future__ import annotations

import enum

from linux_loader._elf import ElfInfo
from linux_loader._errors import UnsupportedProtocolError
from linux_loader._image import KernelImage
from linux_loader._ranges import GuestRange


class BootProtocol(enum.Enum):
    """How the kernel is entered.

    ``AUTO`` takes the 64-bit protocol for a bzImage and an ELF file that a "Linux" note identifies (it alone
    carries an RNG seed), PVH for any other ELF file with its note, else the ELF file's 64-bit entry.
    """

    AUTO = "auto"
    LINUX64 = "linux64"
    PVH = "pvh"


def _entry_is_loaded(elf: ElfInfo) -> bool:
    return any(s.memory.contains(GuestRange(elf.entry, 1)) for s in elf.segments)


def choose_protocol(image: KernelImage, wanted: BootProtocol = BootProtocol.AUTO) -> BootProtocol:
    """Settle how an image is entered.

    Args:
        image: The kernel.
        wanted: A protocol, or AUTO to let the image decide.

    Returns:
        LINUX64 or PVH.

    Raises:
        UnsupportedProtocolError: The image has no such entry.
    """
    elf = image.elf
    if elf is None:
        if wanted is BootProtocol.PVH:
            cure = "unpack it with extract_vmlinux() or vmlinux_from_bzimage()"
            raise UnsupportedProtocolError(
                "PVH", reason="only an ELF vmlinux can carry the PVH note", cure=cure
            )
        return BootProtocol.LINUX64
    has_pvh = elf.pvh_entry is not None
    if wanted is BootProtocol.AUTO:
        native = elf.is_64bit and elf.is_linux and _entry_is_loaded(elf)
        wanted = BootProtocol.PVH if has_pvh and not native else BootProtocol.LINUX64
    if wanted is BootProtocol.PVH and not has_pvh:
        cure = "use LINUX64, or a kernel built with CONFIG_PVH=y"
        raise UnsupportedProtocolError("PVH", reason="no XEN_ELFNOTE_PHYS32_ENTRY note (type 18)", cure=cure)
    if wanted is BootProtocol.LINUX64 and not elf.is_64bit:
        cure = "use PVH if it has that note, or an x86-64 kernel"
        raise UnsupportedProtocolError(
            "the 64-bit boot protocol", reason="the ELF file is 32-bit (i386)", cure=cure
        )
    return wanted
