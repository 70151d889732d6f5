"""Load Linux kernels of x86-64, arm64 and riscv64 into guest memory, on any host.

Start with :func:`load` for x86-64 and :func:`load_image` for the others; :func:`check` tells beforehand
whether ``load`` would succeed, :class:`KernelImage` inspects a file without a guest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
from linux_loader._protocol import BootProtocol, choose_protocol
from linux_loader._ranges import GuestRange
from linux_loader._vmlinux import vmlinux_from_bzimage

if TYPE_CHECKING:
    from linux_loader._load_image import LoadedImage, load_image

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


def __getattr__(name: str) -> object:
    """Load what a VMM of an x86 guest does not need when it is first named (PEP 562)."""
    if name in {"LoadedImage", "load_image"}:
        return getattr(import_module("linux_loader._load_image"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
