"""What a VMM needs of any hypervisor, and KVM behind it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm_hypervisor._cores import CoreScheduling, CoreSharing
    from vm_hypervisor._errors import (
        CpuidError,
        HypervisorError,
        HypervisorUnavailableError,
        RouteError,
        SlotError,
        UnsupportedFeatureError,
        VcpuStateError,
    )
    from vm_hypervisor._exits import (
        DebugStop,
        Exit,
        Failure,
        Halt,
        IoapicEoi,
        Kicked,
        MmioRead,
        MmioWrite,
        PioRead,
        PioWrite,
        Shutdown,
        SystemEvent,
        SystemEventKind,
    )
    from vm_hypervisor._kvm import KvmHypervisor, KvmVcpu, KvmVm
    from vm_hypervisor._native import unclaimed_ports
    from vm_hypervisor._protocols import (
        Hypervisor,
        Irqchip,
        MsiRoute,
        NativeAnswer,
        ResampledLine,
        Vcpu,
        Vm,
        VmOps,
    )
    from vm_hypervisor._slots import MemorySlots
    from vm_hypervisor._vcpu_manager import VcpuManager, VcpuStop

__all__ = (
    "CoreScheduling",
    "CoreSharing",
    "CpuidError",
    "DebugStop",
    "Exit",
    "Failure",
    "Halt",
    "Hypervisor",
    "HypervisorError",
    "HypervisorUnavailableError",
    "IoapicEoi",
    "Irqchip",
    "Kicked",
    "KvmHypervisor",
    "KvmVcpu",
    "KvmVm",
    "MemorySlots",
    "MmioRead",
    "MmioWrite",
    "MsiRoute",
    "NativeAnswer",
    "PioRead",
    "PioWrite",
    "ResampledLine",
    "RouteError",
    "Shutdown",
    "SlotError",
    "SystemEvent",
    "SystemEventKind",
    "UnsupportedFeatureError",
    "Vcpu",
    "VcpuManager",
    "VcpuStateError",
    "VcpuStop",
    "Vm",
    "VmOps",
    "unclaimed_ports",
)

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_cores": ("CoreScheduling", "CoreSharing"),
    "_errors": (
        "CpuidError",
        "HypervisorError",
        "HypervisorUnavailableError",
        "RouteError",
        "SlotError",
        "UnsupportedFeatureError",
        "VcpuStateError",
    ),
    "_exits": (
        "DebugStop",
        "Exit",
        "Failure",
        "Halt",
        "IoapicEoi",
        "Kicked",
        "MmioRead",
        "MmioWrite",
        "PioRead",
        "PioWrite",
        "Shutdown",
        "SystemEvent",
        "SystemEventKind",
    ),
    "_kvm": ("KvmHypervisor", "KvmVcpu", "KvmVm"),
    "_native": ("unclaimed_ports",),
    "_protocols": (
        "Hypervisor",
        "Irqchip",
        "MsiRoute",
        "NativeAnswer",
        "ResampledLine",
        "Vcpu",
        "Vm",
        "VmOps",
    ),
    "_slots": ("MemorySlots",),
    "_vcpu_manager": ("VcpuManager", "VcpuStop"),
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
