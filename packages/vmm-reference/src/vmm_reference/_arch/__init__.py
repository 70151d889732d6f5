"""What the architecture of a machine decides: a module each, with the same names in it.

A guest has its host's architecture, so the module is chosen once, and only that one is loaded.
"""

import os
from typing import TYPE_CHECKING, Final

from vmm_reference._errors import HostError

if TYPE_CHECKING:
    from vmm_reference._arch.base import Architecture

__all__ = ("CONSOLE", "HAS_EMULATED_HOST", "HOST", "KERNEL", "architecture")

HOST: Final = os.uname().machine
"""This host's architecture, as `uname -m` gives it."""
_CONSOLES: Final = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
CONSOLE: Final = _CONSOLES.get(HOST, "ttyS0")
"""What Linux calls the serial port of a machine here."""
KERNEL: Final = "an Image for AArch64" if HOST == "aarch64" else "a bzImage or ELF vmlinux for x86-64"
"""What a guest is started from here, as a refusal's cure says it."""
HAS_EMULATED_HOST: Final = HOST == "x86_64"  # its guest has the x86-64 programs of this host
"""Whether `vmm run` can put a guest of this host into an emulated host."""


def architecture(name: str = HOST) -> "Architecture":
    """Return the module of an architecture.

    Raises:
        HostError: there are no machines of that architecture.
    """
    if name == "x86_64":
        from vmm_reference._arch import x86_64  # noqa: PLC0415 - a machine has one architecture

        return x86_64
    if name == "aarch64":
        from vmm_reference._arch import aarch64  # noqa: PLC0415

        return aarch64
    raise HostError(f"this machine is {name}; guests run on {' and '.join(_CONSOLES)}, use one of those")
