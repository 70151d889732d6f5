"""The reference VMM: the toolkit's packages, wired."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmm_reference._config import (
        BootProtocol,
        Irqchip,
        MemoryConfig,
        PlatformConfig,
        RngConfig,
        SerialConfig,
        SerialMode,
        Tables,
        VmConfig,
    )
    from vmm_reference._config_cpus import CpusConfig
    from vmm_reference._config_disk import DiskConfig
    from vmm_reference._config_events import EventMonitorConfig
    from vmm_reference._config_net import NetConfig
    from vmm_reference._config_rings import RingConfig
    from vmm_reference._errors import ConfigError, HostError, StateError, VmmError
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
    "Tables",
    "VmConfig",
    "Vmm",
    "VmmError",
)

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_config": (
        "BootProtocol",
        "Irqchip",
        "MemoryConfig",
        "PlatformConfig",
        "RngConfig",
        "SerialConfig",
        "SerialMode",
        "Tables",
        "VmConfig",
    ),
    "_config_cpus": ("CpusConfig",),
    "_config_disk": ("DiskConfig",),
    "_config_events": ("EventMonitorConfig",),
    "_config_net": ("NetConfig",),
    "_config_rings": ("RingConfig",),
    "_errors": ("ConfigError", "HostError", "StateError", "VmmError"),
    "_machine": ("Machine", "PlatformDevice"),
    "_vmm": ("End", "EndReason", "Vmm"),
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
