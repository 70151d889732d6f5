"""Buses, allocators, interrupts, the event loop and the legacy devices every machine needs.

The platform description lives in `vm_device.platform`, test doubles in `vm_device.testing`.
"""

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

__all__ = (
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
)
