"""Buses, allocators, interrupts, the event loop and the legacy devices every machine needs.

The platform description lives in `vm_device.platform`, test doubles in `vm_device.testing`.
"""

from vm_device._acpi_registers import AcpiRegisters, AcpiRegistersState
from vm_device._alloc import AddressAllocator, Allocation, AllocatorState, AllocPolicy
from vm_device._boot_timer import BootTimer
from vm_device._bus import AccessCounts, Bus, BusDevice, BusEntry, UnclaimedCounts
from vm_device._cmos import CmosRtc, CmosState
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
from vm_device._i8042 import I8042, I8042State
from vm_device._ids import IdAllocator, IdAllocatorState, SystemAllocator
from vm_device._interrupt import EventFdInterrupt, Interrupt
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
from vm_device._threads import start_masked
from vm_device._tree import DeviceTree
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
    "Bus",
    "BusDevice",
    "BusEntry",
    "BusError",
    "ClosedError",
    "CmosRtc",
    "CmosState",
    "DebugConsole",
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
    "Pvpanic",
    "PvpanicEvent",
    "RangeNotFoundError",
    "RangeOverlapError",
    "SavedStateError",
    "Serial16550",
    "SerialState",
    "SystemAllocator",
    "UnclaimedCounts",
    "VmDeviceError",
    "VmGenId",
    "VmGenIdState",
    "start_masked",
)
