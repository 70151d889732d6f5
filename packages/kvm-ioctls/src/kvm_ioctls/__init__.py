"""Typed access to /dev/kvm: see README.md for a guest in thirty lines."""

from importlib import import_module
from typing import TYPE_CHECKING

from kvm_ioctls._caps import (
    Cap,
)
from kvm_ioctls._device import (
    DeviceFd,
)
from kvm_ioctls._errors import (
    ClosedError,
    ForkedError,
    KvmAbiError,
    KvmError,
    KvmOSError,
    KvmStateError,
    KvmUnavailableError,
    MsrError,
    UnsupportedError,
    VcpuBusyError,
    WrongArchitectureError,
)
from kvm_ioctls._exit_reason import (
    ExitReason,
)
from kvm_ioctls._kvm import (
    API_VERSION,
    Kvm,
)
from kvm_ioctls._native import (
    Constant,
    Counter,
    Drop,
    Eventfd,
    Latch,
    NativeExits,
    NativeRange,
)
from kvm_ioctls._native_ring import Ring
from kvm_ioctls._record import IoRecord
from kvm_ioctls._routing import (
    IrqchipRoute,
    IrqRoute,
    MemFlags,
    MsiRoute,
)
from kvm_ioctls._run_stats import RunStats
from kvm_ioctls._signals import (
    KICK_SIGNAL,
    block_signals,
)
from kvm_ioctls._vcpu import VcpuFd
from kvm_ioctls._vcpu_state import MpState
from kvm_ioctls._vm import VmFd
from kvm_ioctls._x86_64._state import (
    ClockData,
    CpuidEntry,
    DebugRegs,
    DescriptorTable,
    Fpu,
    GuestDebug,
    MsrEntry,
    Regs,
    Segment,
    Sregs,
    Sregs2,
    Translation,
    VcpuEvents,
    Xcr,
)
from kvm_ioctls._x86_64._vm import (
    IrqchipId,
)

if TYPE_CHECKING:
    from kvm_ioctls._aarch64._state import (
        Arm64GuestDebug,
        Arm64VcpuEvents,
        Arm64VcpuInit,
        ArmIrqType,
        SmcccAction,
        arm_irq,
    )
    from kvm_ioctls._cookies import (
        core_cookie,
        share_core,
    )
    from kvm_ioctls._device_type import (
        DeviceType,
    )
    from kvm_ioctls._exits import (
        Exception_,
        Exit,
        FailEntry,
        Hlt,
        Hypercall,
        InternalError,
        Intr,
        IoapicEoi,
        IoIn,
        IoOut,
        IrqWindowOpen,
        MemoryFault,
        MmioRead,
        MmioWrite,
        Nmi,
        Notify,
        RdMsr,
        SetTpr,
        Shutdown,
        SystemEvent,
        TprAccess,
        Unknown,
        WrMsr,
    )
    from kvm_ioctls._exits_arch import (
        ApResetHold,
        Arm64Debug,
        ArmLdst64b,
        ArmNisv,
        ArmSea,
        BusLock,
        Debug,
        DirtyRingFull,
        HypervHcall,
        HypervSyndbg,
        HypervSynic,
        Riscv64Debug,
        RiscvCsr,
        RiscvSbi,
        SnpReqCerts,
        Tdx,
        XenHcall,
    )
    from kvm_ioctls._memory_flags import (
        GuestMemfdFlags,
        MemoryAttributes,
    )
    from kvm_ioctls._reg_id import (
        RiscvRegType,
        arm64_core_reg,
        arm64_sys_reg,
        reg_size,
        riscv64_reg,
    )
    from kvm_ioctls._rings import CoalescedRing, DirtyPage, DirtyRing, RingWrite
    from kvm_ioctls._stats import Stat, StatsFd, StatType, StatUnit
    from kvm_ioctls._trace import TRACED_EXIT_BYTES, RunEnd, TracedExit, traced_exits
    from kvm_ioctls._x86_64._filters import (
        MsrExits,
        MsrFilterFlags,
        MsrFilterRange,
        PmuEventFilter,
    )
    from kvm_ioctls._x86_64._machine_check import (
        MachineCheck,
    )
    from kvm_ioctls._x86_64._sync import (
        SyncFields,
        SyncRegs,
    )

__all__ = (
    "API_VERSION",
    "KICK_SIGNAL",
    "TRACED_EXIT_BYTES",
    "ApResetHold",
    "Arm64Debug",
    "Arm64GuestDebug",
    "Arm64VcpuEvents",
    "Arm64VcpuInit",
    "ArmIrqType",
    "ArmLdst64b",
    "ArmNisv",
    "ArmSea",
    "BusLock",
    "Cap",
    "ClockData",
    "ClosedError",
    "CoalescedRing",
    "Constant",
    "Counter",
    "CpuidEntry",
    "Debug",
    "DebugRegs",
    "DescriptorTable",
    "DeviceFd",
    "DeviceType",
    "DirtyPage",
    "DirtyRing",
    "DirtyRingFull",
    "Drop",
    "Eventfd",
    "Exception_",
    "Exit",
    "ExitReason",
    "FailEntry",
    "ForkedError",
    "Fpu",
    "GuestDebug",
    "GuestMemfdFlags",
    "Hlt",
    "Hypercall",
    "HypervHcall",
    "HypervSyndbg",
    "HypervSynic",
    "InternalError",
    "Intr",
    "IoIn",
    "IoOut",
    "IoRecord",
    "IoapicEoi",
    "IrqRoute",
    "IrqWindowOpen",
    "IrqchipId",
    "IrqchipRoute",
    "Kvm",
    "KvmAbiError",
    "KvmError",
    "KvmOSError",
    "KvmStateError",
    "KvmUnavailableError",
    "Latch",
    "MachineCheck",
    "MemFlags",
    "MemoryAttributes",
    "MemoryFault",
    "MmioRead",
    "MmioWrite",
    "MpState",
    "MsiRoute",
    "MsrEntry",
    "MsrError",
    "MsrExits",
    "MsrFilterFlags",
    "MsrFilterRange",
    "NativeExits",
    "NativeRange",
    "Nmi",
    "Notify",
    "PmuEventFilter",
    "RdMsr",
    "Regs",
    "Ring",
    "RingWrite",
    "Riscv64Debug",
    "RiscvCsr",
    "RiscvRegType",
    "RiscvSbi",
    "RunEnd",
    "RunStats",
    "Segment",
    "SetTpr",
    "Shutdown",
    "SmcccAction",
    "SnpReqCerts",
    "Sregs",
    "Sregs2",
    "Stat",
    "StatType",
    "StatUnit",
    "StatsFd",
    "SyncFields",
    "SyncRegs",
    "SystemEvent",
    "Tdx",
    "TprAccess",
    "TracedExit",
    "Translation",
    "Unknown",
    "UnsupportedError",
    "VcpuBusyError",
    "VcpuEvents",
    "VcpuFd",
    "VmFd",
    "WrMsr",
    "WrongArchitectureError",
    "Xcr",
    "XenHcall",
    "arm64_core_reg",
    "arm64_sys_reg",
    "arm_irq",
    "block_signals",
    "core_cookie",
    "reg_size",
    "riscv64_reg",
    "share_core",
    "traced_exits",
)

# A loop on `run_raw` and `IoRecord` needs none of these: each module loads when a name of it is first used.
_LATER = {
    "_aarch64._state": (
        "Arm64GuestDebug",
        "Arm64VcpuEvents",
        "Arm64VcpuInit",
        "ArmIrqType",
        "SmcccAction",
        "arm_irq",
    ),
    "_cookies": (
        "core_cookie",
        "share_core",
    ),
    "_device_type": ("DeviceType",),
    "_exits": (
        "Exception_",
        "Exit",
        "FailEntry",
        "Hlt",
        "Hypercall",
        "InternalError",
        "Intr",
        "IoIn",
        "IoOut",
        "IoapicEoi",
        "IrqWindowOpen",
        "MemoryFault",
        "MmioRead",
        "MmioWrite",
        "Nmi",
        "Notify",
        "RdMsr",
        "SetTpr",
        "Shutdown",
        "SystemEvent",
        "TprAccess",
        "Unknown",
        "WrMsr",
    ),
    "_exits_arch": (
        "ApResetHold",
        "Arm64Debug",
        "ArmLdst64b",
        "ArmNisv",
        "ArmSea",
        "BusLock",
        "Debug",
        "DirtyRingFull",
        "HypervHcall",
        "HypervSyndbg",
        "HypervSynic",
        "Riscv64Debug",
        "RiscvCsr",
        "RiscvSbi",
        "SnpReqCerts",
        "Tdx",
        "XenHcall",
    ),
    "_reg_id": (
        "RiscvRegType",
        "arm64_core_reg",
        "arm64_sys_reg",
        "reg_size",
        "riscv64_reg",
    ),
    "_rings": ("CoalescedRing", "DirtyPage", "DirtyRing", "RingWrite"),
    "_stats": ("Stat", "StatType", "StatUnit", "StatsFd"),
    "_trace": ("TRACED_EXIT_BYTES", "RunEnd", "TracedExit", "traced_exits"),
    "_memory_flags": (
        "GuestMemfdFlags",
        "MemoryAttributes",
    ),
    "_x86_64._filters": (
        "MsrExits",
        "MsrFilterFlags",
        "MsrFilterRange",
        "PmuEventFilter",
    ),
    "_x86_64._machine_check": ("MachineCheck",),
    "_x86_64._sync": (
        "SyncFields",
        "SyncRegs",
    ),
}
_HOME = {name: module for module, names in _LATER.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load a module when a name of it is first used (PEP 562)."""
        if name in _HOME:
            value = globals()[name] = getattr(import_module(f"kvm_ioctls.{_HOME[name]}"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME})
