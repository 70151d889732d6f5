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
from kvm_ioctls._record import (
    IoRecord,
)
from kvm_ioctls._routing import (
    IrqchipRoute,
    IrqRoute,
    MemFlags,
    MsiRoute,
)
from kvm_ioctls._signals import (
    KICK_SIGNAL,
    block_signals,
)
from kvm_ioctls._vcpu import (
    RunStats,
    VcpuFd,
)
from kvm_ioctls._vm import (
    VmFd,
)
from kvm_ioctls._x86_64._state import (
    ClockData,
    CpuidEntry,
    DebugRegs,
    DescriptorTable,
    Fpu,
    GuestDebug,
    MpState,
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
    from kvm_ioctls._exits import (
        Debug,
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

__all__ = (
    "API_VERSION",
    "KICK_SIGNAL",
    "Cap",
    "ClockData",
    "ClosedError",
    "Constant",
    "Counter",
    "CpuidEntry",
    "Debug",
    "DebugRegs",
    "DescriptorTable",
    "DeviceFd",
    "Drop",
    "Eventfd",
    "Exception_",
    "Exit",
    "ExitReason",
    "FailEntry",
    "ForkedError",
    "Fpu",
    "GuestDebug",
    "Hlt",
    "Hypercall",
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
    "MemFlags",
    "MemoryFault",
    "MmioRead",
    "MmioWrite",
    "MpState",
    "MsiRoute",
    "MsrEntry",
    "MsrError",
    "NativeExits",
    "NativeRange",
    "Nmi",
    "Notify",
    "RdMsr",
    "Regs",
    "RunStats",
    "Segment",
    "SetTpr",
    "Shutdown",
    "Sregs",
    "Sregs2",
    "SystemEvent",
    "TprAccess",
    "Translation",
    "Unknown",
    "UnsupportedError",
    "VcpuBusyError",
    "VcpuEvents",
    "VcpuFd",
    "VmFd",
    "WrMsr",
    "Xcr",
    "block_signals",
)

# A loop on `run_raw` and `IoRecord` needs no class of an exit.
_EXITS = frozenset(
    {
        "Debug",
        "Exception_",
        "Exit",
        "FailEntry",
        "Hlt",
        "Hypercall",
        "InternalError",
        "Intr",
        "IoapicEoi",
        "IoIn",
        "IoOut",
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
    }
)

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the classes of exits when one is first used (PEP 562)."""
        if name in _EXITS:
            value = globals()[name] = getattr(import_module("kvm_ioctls._exits"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_EXITS})
