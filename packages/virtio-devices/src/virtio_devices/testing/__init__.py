"""The driver's side of virtio-mmio, to test devices with: ours, yours and other people's.

`MmioDriver` speaks to any `vm_device.BusDevice` through its registers, as a guest's driver does, in the order
of VIRTIO 1.2 section 3.1.1, and refuses to go on where the device breaks the specification.
"""

from virtio_devices.testing._blk_driver import BlkDriver
from virtio_devices.testing._line import LineProbe
from virtio_devices.testing._mmio_driver import DeviceRefusedError, MmioDriver
from virtio_devices.testing._net_driver import NetDriver, NetHeader, ReceivedFrame, SocketBackend

__all__ = (
    "BlkDriver",
    "DeviceRefusedError",
    "LineProbe",
    "MmioDriver",
    "NetDriver",
    "NetHeader",
    "ReceivedFrame",
    "SocketBackend",
)
