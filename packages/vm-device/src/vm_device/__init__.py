"""Buses, allocators, interrupts, the event loop and the legacy devices every machine needs.

The platform description lives in `vm_device.platform`, test doubles in `vm_device.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm_device._acpi_registers import AcpiRegisters
    from vm_device._alloc import AddressAllocator, Allocation, AllocPolicy
    from vm_device._boot_timer import BootTimer
    from vm_device._bus import Bus, BusDevice, BusEntry
    from vm_device._bus_counts import AccessCounts, UnclaimedCounts
    from vm_device._cmos import CmosRtc
    from vm_device._debug_ports import DebugConsole, PostCodes
    from vm_device._errors import (
        AccessSizeError,
        AllocationError,
        BusError,
        ClosedError,
        DeviceTreeError,
        ExhaustedError,
        LifecycleError,
        NotAllocatedError,
        PlatformError,
        RangeNotFoundError,
        RangeOverlapError,
        SavedStateError,
        VmDeviceError,
    )
    from vm_device._eventfd import EventFd
    from vm_device._events import EventManager
    from vm_device._i8042 import I8042
    from vm_device._ids import IdAllocator, SystemAllocator
    from vm_device._interrupt import EventFdInterrupt, Interrupt, ResampledInterrupt
    from vm_device._io import IoManager, IoReader, IoSnapshot
    from vm_device._ioapic import IoApic, IoApicOutput, IoApicState, PinMessage
    from vm_device._lifecycle import Lifecycle, LifecycleState
    from vm_device._pl011 import Pl011
    from vm_device._pl011_state import Pl011State
    from vm_device._pl031 import Pl031, Pl031State
    from vm_device._pl061 import Pl061, Pl061State
    from vm_device._pm_timer import PmTimer, PmTimerState
    from vm_device._pvpanic import Pvpanic, PvpanicEvent
    from vm_device._serial import Serial16550
    from vm_device._serial_state import SerialState
    from vm_device._states import (
        AcpiRegistersState,
        AllocatorState,
        BootTimerState,
        CmosState,
        DebugConsoleState,
        I8042State,
        IdAllocatorState,
        PostCodesState,
        PvpanicState,
    )
    from vm_device._threads import start_masked
    from vm_device._tree import DeviceTree
    from vm_device._value import Value
    from vm_device._vmgenid import VmGenId, VmGenIdState
    from vm_device._widths import AccessWidths

__all__ = (  # noqa: RUF022 - plain sorted order, so that a test can compare
    "AccessCounts",
    "AccessSizeError",
    "AccessWidths",
    "AcpiRegisters",
    "AcpiRegistersState",
    "AddressAllocator",
    "AllocPolicy",
    "Allocation",
    "AllocationError",
    "AllocatorState",
    "BootTimer",
    "BootTimerState",
    "Bus",
    "BusDevice",
    "BusEntry",
    "BusError",
    "ClosedError",
    "CmosRtc",
    "CmosState",
    "DebugConsole",
    "DebugConsoleState",
    "DeviceTree",
    "DeviceTreeError",
    "EventFd",
    "EventFdInterrupt",
    "EventManager",
    "ExhaustedError",
    "I8042",
    "I8042State",
    "IdAllocator",
    "IdAllocatorState",
    "Interrupt",
    "IoApic",
    "IoApicOutput",
    "IoApicState",
    "IoManager",
    "IoReader",
    "IoSnapshot",
    "Lifecycle",
    "LifecycleError",
    "LifecycleState",
    "NotAllocatedError",
    "PinMessage",
    "Pl011",
    "Pl011State",
    "Pl031",
    "Pl031State",
    "Pl061",
    "Pl061State",
    "PlatformError",
    "PmTimer",
    "PmTimerState",
    "PostCodes",
    "PostCodesState",
    "Pvpanic",
    "PvpanicEvent",
    "PvpanicState",
    "RangeNotFoundError",
    "RangeOverlapError",
    "ResampledInterrupt",
    "SavedStateError",
    "Serial16550",
    "SerialState",
    "SystemAllocator",
    "UnclaimedCounts",
    "Value",
    "VmDeviceError",
    "VmGenId",
    "VmGenIdState",
    "start_masked",
)

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_acpi_registers": ("AcpiRegisters",),
    "_alloc": ("AddressAllocator", "AllocPolicy", "Allocation"),
    "_boot_timer": ("BootTimer",),
    "_bus": ("Bus", "BusDevice", "BusEntry"),
    "_bus_counts": ("AccessCounts", "UnclaimedCounts"),
    "_cmos": ("CmosRtc",),
    "_debug_ports": ("DebugConsole", "PostCodes"),
    "_errors": (
        "AccessSizeError",
        "AllocationError",
        "BusError",
        "ClosedError",
        "DeviceTreeError",
        "ExhaustedError",
        "LifecycleError",
        "NotAllocatedError",
        "PlatformError",
        "RangeNotFoundError",
        "RangeOverlapError",
        "SavedStateError",
        "VmDeviceError",
    ),
    "_eventfd": ("EventFd",),
    "_events": ("EventManager",),
    "_i8042": ("I8042",),
    "_ids": ("IdAllocator", "SystemAllocator"),
    "_interrupt": ("EventFdInterrupt", "Interrupt", "ResampledInterrupt"),
    "_io": ("IoManager", "IoReader", "IoSnapshot"),
    "_ioapic": ("IoApic", "IoApicOutput", "IoApicState", "PinMessage"),
    "_lifecycle": ("Lifecycle", "LifecycleState"),
    "_pl011": ("Pl011",),
    "_pl011_state": ("Pl011State",),
    "_pl031": ("Pl031", "Pl031State"),
    "_pl061": ("Pl061", "Pl061State"),
    "_pm_timer": ("PmTimer", "PmTimerState"),
    "_pvpanic": ("Pvpanic", "PvpanicEvent"),
    "_serial": ("Serial16550",),
    "_serial_state": ("SerialState",),
    "_states": (
        "AcpiRegistersState",
        "AllocatorState",
        "BootTimerState",
        "CmosState",
        "DebugConsoleState",
        "I8042State",
        "IdAllocatorState",
        "PostCodesState",
        "PvpanicState",
    ),
    "_threads": ("start_masked",),
    "_tree": ("DeviceTree",),
    "_value": ("Value",),
    "_vmgenid": ("VmGenId", "VmGenIdState"),
    "_widths": ("AccessWidths",),
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
