"""Load Linux kernels of x86-64, arm64 and riscv64 into guest memory, on any host.

Start with :func:`load` for x86-64 and :func:`load_image` for the others; :func:`check` tells beforehand
whether ``load`` would succeed, :class:`KernelImage` inspects a file without a guest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linux_loader._bzimage import SetupHeader
    from linux_loader._cmdline import Cmdline
    from linux_loader._compression import Compression, detect_compression
    from linux_loader._e820 import E820Entry, E820Type, build_memory_map
    from linux_loader._elf import ElfInfo, ElfSegment
    from linux_loader._entry import DescriptorTable, EntryState, Segment
    from linux_loader._errors import (
        CmdlineError,
        CmdlineTooLongError,
        ConfigurationError,
        DecompressionError,
        FdtBuildError,
        FdtParseError,
        ForeignArchitectureError,
        ImageError,
        LoaderError,
        MalformedImageError,
        PlacementError,
        TruncatedImageError,
        UnknownFormatError,
        UnsupportedProtocolError,
    )
    from linux_loader._flat import ImageHeader
    from linux_loader._image import KernelImage, VmlinuxChunks
    from linux_loader._load import LoadedKernel, check, load
    from linux_loader._load_image import LoadedImage, load_image
    from linux_loader._protocol import BootProtocol, choose_protocol
    from linux_loader._ranges import GuestRange
    from linux_loader._vmlinux import vmlinux_from_bzimage

__all__ = (
    "BootProtocol",
    "Cmdline",
    "CmdlineError",
    "CmdlineTooLongError",
    "Compression",
    "ConfigurationError",
    "DecompressionError",
    "DescriptorTable",
    "E820Entry",
    "E820Type",
    "ElfInfo",
    "ElfSegment",
    "EntryState",
    "FdtBuildError",
    "FdtParseError",
    "ForeignArchitectureError",
    "GuestRange",
    "ImageError",
    "ImageHeader",
    "KernelImage",
    "LoadedImage",
    "LoadedKernel",
    "LoaderError",
    "MalformedImageError",
    "PlacementError",
    "Segment",
    "SetupHeader",
    "TruncatedImageError",
    "UnknownFormatError",
    "UnsupportedProtocolError",
    "VmlinuxChunks",
    "build_memory_map",
    "check",
    "choose_protocol",
    "detect_compression",
    "load",
    "load_image",
    "vmlinux_from_bzimage",
)
__version__ = "0.2.0"

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_bzimage": ("SetupHeader",),
    "_cmdline": ("Cmdline",),
    "_compression": ("Compression", "detect_compression"),
    "_e820": ("E820Entry", "E820Type", "build_memory_map"),
    "_elf": ("ElfInfo", "ElfSegment"),
    "_entry": ("DescriptorTable", "EntryState", "Segment"),
    "_errors": (
        "CmdlineError",
        "CmdlineTooLongError",
        "ConfigurationError",
        "DecompressionError",
        "FdtBuildError",
        "FdtParseError",
        "ForeignArchitectureError",
        "ImageError",
        "LoaderError",
        "MalformedImageError",
        "PlacementError",
        "TruncatedImageError",
        "UnknownFormatError",
        "UnsupportedProtocolError",
    ),
    "_flat": ("ImageHeader",),
    "_image": ("KernelImage", "VmlinuxChunks"),
    "_load": ("LoadedKernel", "check", "load"),
    "_load_image": ("LoadedImage", "load_image"),
    "_protocol": ("BootProtocol", "choose_protocol"),
    "_ranges": ("GuestRange",),
    "_vmlinux": ("vmlinux_from_bzimage",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a public name."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
