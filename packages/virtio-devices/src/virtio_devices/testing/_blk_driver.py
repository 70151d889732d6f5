"""Block requests as a guest's driver makes them."""

import struct
from typing import final

from virtio_devices._spec import DeviceId
from virtio_devices.testing._mmio_driver import DeviceRefusedError, MmioDriver

_HEADER = struct.Struct("<IIQ")  # struct virtio_blk_req
_RANGE = struct.Struct("<QII")  # struct virtio_blk_discard_write_zeroes


@final
class BlkDriver:
    """Block requests on top of `MmioDriver` (VIRTIO 1.2 section 5.2.6), one at a time.

    Args:
        driver: an initialised driver of a block device.

    Raises:
        DeviceRefusedError: the device is no block device.
    """

    def __init__(self, driver: MmioDriver) -> None:
        self.driver = driver
        kind = driver.probe()
        if kind != DeviceId.BLOCK:
            raise DeviceRefusedError("DeviceID", kind, "2 (block)")

    @property
    def capacity(self) -> int:
        """Sectors of 512 bytes."""
        return self.driver.read_config(0, 8)

    def request(
        self,
        kind: int,
        sector: int = 0,
        data: bytes = b"",
        size: int = 0,
        *,
        cut: int | None = None,
        indirect: bool = False,
    ) -> tuple[int, bytes]:
        """One request of any type.

        Args:
            kind: request type.
            sector: first sector.
            data: payload for the device.
            size: bytes of payload expected from the device.
            cut: None for header, data and status in buffers of their own; otherwise the readable bytes and
                the writable bytes are each cut into buffers of this size, as section 2.7.4.1 lets a driver
                do.
            indirect: put the buffers into an indirect table.

        Returns:
            Status byte and payload.
        """
        header = _HEADER.pack(kind, 0, sector)
        if cut is None:
            readable, writable = (
                [part for part in (header, data) if part],
                [part for part in (size, 1) if part],
            )
        else:
            out, room = header + data, size + 1
            readable = [out[i : i + cut] for i in range(0, len(out), cut)]
            writable = [min(cut, room - i) for i in range(0, room, cut)]
        done = self.driver.request(readable, writable, indirect=indirect)
        answer = b"".join(done.data)
        return answer[-1], answer[:-1]

    def read(self, sector: int, count: int) -> tuple[int, bytes]:
        """Read `count` sectors; status and data."""
        return self.request(0, sector, size=count * 512)

    def write(self, sector: int, data: bytes) -> int:
        """Write whole sectors; status."""
        return self.request(1, sector, data)[0]

    def flush(self) -> int:
        """Flush the device's cache; status."""
        return self.request(4)[0]

    def get_id(self) -> tuple[int, bytes]:
        """The serial number; status and 20 bytes."""
        return self.request(8, size=20)

    def discard(self, *ranges: tuple[int, int, int]) -> int:
        """Discard (sector, sectors, flags) segments; status."""
        return self.request(11, data=b"".join(_RANGE.pack(*one) for one in ranges))[0]

    def write_zeroes(self, *ranges: tuple[int, int, int]) -> int:
        """Write zeroes to (sector, sectors, flags) segments; status."""
        return self.request(13, data=b"".join(_RANGE.pack(*one) for one in ranges))[0]
