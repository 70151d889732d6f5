"""Virtio devices: the framework they have in common, the virtio-mmio transport; disk, network card, entropy.

A device type is any object with the shape of `VirtioDevice`; `VirtioMmio` puts it on a bus. The driver's
side, for tests, is in `virtio_devices.testing`.
"""

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
from virtio_devices._mmio import MmioState, NotifyRange, VirtioMmio
from virtio_devices._net import NetFeature, NetStats, VirtioNet, random_mac
from virtio_devices._net_port import NetBackend, NetCounters, Offload
from virtio_devices._pcap import PcapWriter
from virtio_devices._rng import EntropySource, VirtioRng
from virtio_devices._server import QueueServer
from virtio_devices._spec import DeviceId, Feature, InterruptBit, MmioRegister, Status
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
    "RequestError",
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
