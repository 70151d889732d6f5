"""A complete KVM on any machine: an emulated Linux host as a Python call, a command and a pytest plugin."""

from ._cli import main
from ._errors import EmulatedHostError, HostCrashError, HostTimeoutError, KernelImageError, SetupError
from ._run import prepare, run
from ._session import Result

__all__ = (
    "EmulatedHostError",
    "HostCrashError",
    "HostTimeoutError",
    "KernelImageError",
    "Result",
    "SetupError",
    "main",
    "prepare",
    "run",
)
