"""Virtio devices: the framework they have in common, the virtio-mmio transport; disk, network card, entropy.

A device type is any object with the shape of `VirtioDevice`; `VirtioMmio` puts it on a bus. The driver's
side, for tests, is in `virtio_devices.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtio_devices._blk import BlkFeature, BlkStats, VirtioBlk
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
    from virtio_devices._image import DiskImage
    from virtio_devices._mmio import NotifyRange, VirtioMmio
    from virtio_devices._mmio_state import MmioState
    from virtio_devices._net import NetFeature, NetStats, VirtioNet, random_mac
    from virtio_devices._net_port import NetBackend, NetCounters, Offload
    from virtio_devices._pcap import PcapWriter
    from virtio_devices._rings import RingOptions
    from virtio_devices._rng import EntropySource, VirtioRng
    from virtio_devices._server import QueueServer
    from virtio_devices._spec import DeviceId, Feature, InterruptBit, MmioRegister, Status
    from virtio_devices._tally import QueueStats
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

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_blk": ("BlkFeature", "BlkStats", "VirtioBlk"),
    "_context": ("DetachedQueue", "DeviceContext", "Interrupts"),
    "_device": ("StateValue", "VirtioDevice"),
    "_errors": (
        "CaptureError",
        "CoreError",
        "DriverTimeoutError",
        "ImageError",
        "ImageLockedError",
        "RequestError",
        "SavedStateError",
        "SourceError",
        "TapError",
        "TransportStateError",
        "VirtioDeviceError",
    ),
    "_host": ("DeviceHost",),
    "_host_state": ("HostState",),
    "_image": ("DiskImage",),
    "_mmio": ("NotifyRange", "VirtioMmio"),
    "_mmio_state": ("MmioState",),
    "_net": ("NetFeature", "NetStats", "VirtioNet", "random_mac"),
    "_net_port": ("NetBackend", "NetCounters", "Offload"),
    "_pcap": ("PcapWriter",),
    "_rings": ("RingOptions",),
    "_rng": ("EntropySource", "VirtioRng"),
    "_server": ("QueueServer",),
    "_spec": ("DeviceId", "Feature", "InterruptBit", "MmioRegister", "Status"),
    "_tally": ("QueueStats",),
    "_tap": ("Tap",),
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
