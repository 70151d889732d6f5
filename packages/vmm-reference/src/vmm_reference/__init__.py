"""The reference VMM: the toolkit's packages, wired."""

from importlib import import_module
from typing import TYPE_CHECKING

from vmm_reference._config import (
    BootProtocol,
    DiskConfig,
    EventMonitorConfig,
    Irqchip,
    MemoryConfig,
    PlatformConfig,
    RngConfig,
    SerialConfig,
    SerialMode,
    VmConfig,
)
from vmm_reference._config_cpus import CpusConfig
from vmm_reference._config_net import NetConfig
from vmm_reference._config_rings import RingConfig
from vmm_reference._errors import ConfigError, HostError, StateError, VmmError

if TYPE_CHECKING:
    from vmm_reference._machine import Machine, PlatformDevice
    from vmm_reference._vmm import End, EndReason, Vmm

__all__ = (
    "BootProtocol",
    "ConfigError",
    "CpusConfig",
    "DiskConfig",
    "End",
    "EndReason",
    "EventMonitorConfig",
    "HostError",
    "Irqchip",
    "Machine",
    "MemoryConfig",
    "NetConfig",
    "PlatformConfig",
    "PlatformDevice",
    "RingConfig",
    "RngConfig",
    "SerialConfig",
    "SerialMode",
    "StateError",
    "VmConfig",
    "Vmm",
    "VmmError",
)

# A configuration, a refused option or `vmm --help` needs none of the packages that make a machine.
_LATE = {
    "End": "_vmm",
    "EndReason": "_vmm",
    "Machine": "_machine",
    "PlatformDevice": "_machine",
    "Vmm": "_vmm",
}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a name when it is first used (PEP 562)."""
        if name in _LATE:
            value = globals()[name] = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})
