"""What depends on the guest's processor, one module each; those of an Image have the same names."""

from typing import Protocol

from linux_loader._errors import ForeignArchitectureError
from linux_loader._ranges import GuestRange

__all__ = ("ImageArch", "for_arch")


class ImageArch(Protocol):
    """What a module of an architecture booted from an Image has."""

    @property
    def CMDLINE_MAX(self) -> int:  # noqa: N802 - a constant of the module
        """Longest command line in bytes, the NUL not counted."""

    @property
    def IMAGE_ALIGNMENT(self) -> int:  # noqa: N802
        """What text_offset counts from a multiple of."""

    @property
    def IMAGE_END_MAX(self) -> int:  # noqa: N802
        """Address at or below which an Image ends."""

    def initrd_window(self, kernel: GuestRange) -> GuestRange:
        """Return where an initrd may lie."""

    def fdt_limit(self, kernel: GuestRange) -> int:
        """Return the address at or below which the device tree ends."""


def for_arch(arch: str) -> ImageArch:
    """Return the module of an architecture that boots an Image.

    Args:
        arch: ``"aarch64"`` or ``"riscv64"``.

    Returns:
        Its constants and functions.

    Raises:
        ForeignArchitectureError: Another one.
    """
    from linux_loader.arch import aarch64, riscv64  # noqa: PLC0415 - a VMM loads at most one kind of kernel

    modules: dict[str, ImageArch] = {"aarch64": aarch64, "riscv64": riscv64}
    if arch not in modules:
        raise ForeignArchitectureError(arch, wanted="aarch64 or riscv64")
    return modules[arch]
