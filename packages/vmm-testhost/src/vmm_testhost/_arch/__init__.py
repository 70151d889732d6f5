"""What differs between emulated hosts of different architectures: one module each, with the same names."""

from . import aarch64, x86_64
from .base import Architecture, Host

ARCHITECTURES = {arch.name: arch for arch in (x86_64.ARCHITECTURE, aarch64.ARCHITECTURE)}
"""Those that there are emulated hosts of, by their names as `uname -m` has them."""
DEFAULT = x86_64.ARCHITECTURE
"""What runs without `--arch`."""

__all__ = ("ARCHITECTURES", "DEFAULT", "Architecture", "Host")
