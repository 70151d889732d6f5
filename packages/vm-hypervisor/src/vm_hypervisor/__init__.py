"""What a VMM needs of any hypervisor, and KVM behind it."""

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
from vm_hypervisor._protocols import Hypervisor, Irqchip, MsiRoute, NativeAnswer, Vcpu, Vm, VmOps
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
