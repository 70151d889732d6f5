"""What each architecture says in its tables; every module here has the same functions."""

from typing import Protocol

from vm_device.platform import Platform

from acpi_tables._errors import UnsupportedPlatformError
from acpi_tables._fadt import BootArch
from acpi_tables._madt import Madt
from acpi_tables.arch import x86_64

__all__ = ("ArchTables", "for_arch")


class ArchTables(Protocol):
    """The functions of an architecture module."""

    def boot_arch(self, platform: Platform) -> BootArch:
        """Return the IAPC_BOOT_ARCH bits of the FADT."""

    def arm_boot_arch(self, platform: Platform) -> int:
        """Return the ARM_BOOT_ARCH bits of the FADT."""

    def madt(self, platform: Platform) -> Madt:
        """Return the interrupt controllers of the machine."""

    def more_tables(self, platform: Platform) -> dict[str, bytes]:
        """Return what else the architecture has, signature to table."""


_KNOWN = ("aarch64", "x86_64")


def for_arch(arch: str) -> ArchTables:
    """Return the module of an architecture.

    Args:
        arch: name as in ``Platform.arch``, such as ``x86_64``.

    Returns:
        Its functions.

    Raises:
        UnsupportedPlatformError: the architecture has no tables here.
    """
    if arch == "x86_64":
        return x86_64
    if arch == "aarch64":
        from acpi_tables.arch import aarch64  # noqa: PLC0415 - a VMM on x86 starts without it

        return aarch64
    raise UnsupportedPlatformError("arch", f"{arch!r} has no ACPI tables here, only {', '.join(_KNOWN)}")
