"""Virtio devices: the framework they have in common, the virtio-mmio transport; disk, network card, entropy.

A device type is any object with the shape of `VirtioDevice`; `VirtioMmio` puts it on a bus. The driver's
side, for tests, is in `virtio_devices.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from virtio_devices._context import DetachedQueue, DeviceContext, Interrupts
from virtio_devices._device import StateValue, VirtioDevice
from virtio_devices._errors import (
    CaptureError,
    CoreError,
    DriverTimeoutError,
    ImageError,
    ImageLockedError,
    RequestError,
    SavedStateError,
    SourceError,
    TapError,
    TransportStateError,
    VirtioDeviceError,
)
from virtio_devices._host import DeviceHost
from virtio_devices._host_state import HostState
from virtio_devices._mmio import MmioState, NotifyRange, VirtioMmio
from virtio_devices._rings import QueueStats, RingOptions
from virtio_devices._rng import EntropySource, VirtioRng
from virtio_devices._server import QueueServer
from virtio_devices._spec import DeviceId, Feature, InterruptBit, MmioRegister, Status

if TYPE_CHECKING:
    from virtio_devices._blk import BlkFeature, BlkStats, VirtioBlk
    from virtio_devices._image import DiskImage
    from virtio_devices._net import NetFeature, NetStats, VirtioNet, random_mac
    from virtio_devices._net_port import NetBackend, NetCounters, Offload
    from virtio_devices._pcap import PcapWriter
    from virtio_devices._tap import Tap

__all__ = (
    "BlkFeature",
    "BlkStats",
    "CaptureError",
    "CoreError",
    "DetachedQueue",
    "DeviceContext",
    "DeviceHost",
    "DeviceId",
    "DiskImage",
    "DriverTimeoutError",
    "EntropySource",
    "Feature",
    "HostState",
    "ImageError",
    "ImageLockedError",
    "InterruptBit",
    "Interrupts",
    "MmioRegister",
    "MmioState",
    "NetBackend",
    "NetCounters",
    "NetFeature",
    "NetStats",
    "NotifyRange",
    "Offload",
    "PcapWriter",
    "QueueServer",
    "QueueStats",
    "RequestError",
    "RingOptions",
    "SavedStateError",
    "SourceError",
    "StateValue",
    "Status",
    "Tap",
    "TapError",
    "TransportStateError",
    "VirtioBlk",
    "VirtioDevice",
    "VirtioDeviceError",
    "VirtioMmio",
    "VirtioNet",
    "VirtioRng",
    "random_mac",
)

# The device types: a VMM loads the code of those that its machine has.
_LATE = {
    "BlkFeature": "_blk",
    "BlkStats": "_blk",
    "DiskImage": "_image",
    "NetBackend": "_net_port",
    "NetCounters": "_net_port",
    "NetFeature": "_net",
    "NetStats": "_net",
    "Offload": "_net_port",
    "PcapWriter": "_pcap",
    "Tap": "_tap",
    "VirtioBlk": "_blk",
    "VirtioNet": "_net",
    "random_mac": "_net",
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
