"""The reference VMM: the toolkit's packages, wired."""

from vmm_reference._config import (
    BootProtocol,
    CpusConfig,
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
from vmm_reference._config_net import NetConfig
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
    "RngConfig",
    "SerialConfig",
    "SerialMode",
    "StateError",
    "VmConfig",
    "Vmm",
    "VmmError",
)
