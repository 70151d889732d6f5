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

    def madt(self, platform: Platform) -> Madt:
        """Return the interrupt controllers of the machine."""


_ARCHES: dict[str, ArchTables] = {"x86_64": x86_64}


def for_arch(arch: str) -> ArchTables:
    """Return the module of an architecture.

    Args:
        arch: name as in ``Platform.arch``, such as ``x86_64``.

    Returns:
        Its functions.

    Raises:
        UnsupportedPlatformError: the architecture has no tables here.
    """
    try:
        return _ARCHES[arch]
    except KeyError:
        known = ", ".join(sorted(_ARCHES))
        raise UnsupportedPlatformError("arch", f"{arch!r} has no ACPI tables here, only {known}") from None
