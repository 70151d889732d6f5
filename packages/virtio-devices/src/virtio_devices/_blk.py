"""virtio-blk: a raw image as a disk (VIRTIO 1.2 section 5.2)."""

import enum
import struct
from collections.abc import Mapping
from typing import final

import attrs
from virtio_queue import ChainBatch, DescriptorChain
from vmm_memory import GuestMemory

from virtio_devices._blk_disk import (
    ID_BYTES,
    MAX_DISCARD_SECTORS,
    MAX_RANGES,
    MAX_ZEROES_SECTORS,
    SECTOR,
    BlkReport,
    DiskFlag,
    DiskView,
)
from virtio_devices._blk_python import PythonDataPath
from virtio_devices._context import DeviceContext
from virtio_devices._device import StateValue
from virtio_devices._errors import SavedStateError
from virtio_devices._ffi import NativeDataPath
from virtio_devices._image import DiskImage
from virtio_devices._log import LOGGER, GuestLog
from virtio_devices._spec import DeviceId

__all__ = ("BlkFeature", "BlkStats", "VirtioBlk")

# struct virtio_blk_config, VIRTIO 1.2 section 5.2.4: capacity, size_max, seg_max, geometry (3), blk_size,
# topology (4), writeback, unused0, num_queues, discard (3), write zeroes (2), may_unmap, unused1[3], secure
# erase (3).
_CONFIG = struct.Struct("<QII HBB I BBHI BBH III IIB3x III")
_WRITEBACK_OFFSET = 32


class BlkFeature(enum.IntFlag):
    """Feature bits of virtio-blk (VIRTIO 1.2 section 5.2.3)."""

    SEG_MAX = 1 << 2
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14


_ALWAYS = BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.FLUSH | BlkFeature.TOPOLOGY
_WRITABLE = BlkFeature.CONFIG_WCE | BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES
_FLAGS = {
    BlkFeature.RO: DiskFlag.READ_ONLY,
    BlkFeature.FLUSH: DiskFlag.FLUSH,
    BlkFeature.DISCARD: DiskFlag.DISCARD,
    BlkFeature.WRITE_ZEROES: DiskFlag.WRITE_ZEROES,
}


@attrs.frozen
class BlkStats:
    """Counters since the device was made.

    Attributes:
        read_bytes: moved from the image into the guest.
        written_bytes: moved from the guest into the image.
        host_errors: requests that the host failed.
    """

    read_bytes: int
    written_bytes: int
    host_errors: int


def _serial_bytes(serial: str | None) -> bytes | None:
    if serial is None:
        return None
    encoded = serial.encode("ascii", "strict") if serial.isascii() else b""
    if not 0 < len(encoded) <= ID_BYTES:
        raise ValueError(f"serial={serial!r}: must be 1 to {ID_BYTES} ASCII characters")
    return encoded


@final
class VirtioBlk:
    """A disk. Has the shape of `VirtioDevice`.

    Host errors (EIO, ENOSPC, an image truncated underneath) reach the guest as I/O errors of the request, and
    the log as one rate-limited line. Without FLUSH negotiated, or with the write cache switched off, each
    write is synced before it is answered.

    Args:
        id: name of the device.
        image: the open image; owned from now on (closed with the device).
        serial: what the guest reads as serial number, 1 to 20 ASCII characters; None: the guest gets none.
        queue_size: a power of two from 4 to 32768.
        native: batches in C; False: the data path in Python, the same to the guest.

    Raises:
        ValueError: serial or queue_size is out of range; the image stays open and the caller's.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the name every device has
        image: DiskImage,
        *,
        serial: str | None = None,
        queue_size: int = 256,
        native: bool = True,
    ) -> None:
        if queue_size < 4 or queue_size > 32768 or queue_size & (queue_size - 1):
            raise ValueError(f"queue_size={queue_size}: must be a power of two from 4 to 32768")
        self.id = id
        self.device_id = int(DeviceId.BLOCK)
        self.queue_sizes = (queue_size,)
        self.features = int(_ALWAYS | (BlkFeature.RO if image.read_only else _WRITABLE))
        self.native = native
        self._image = image
        self._serial = _serial_bytes(serial)
        self._log = GuestLog(id)
        self._negotiated = 0
        self._writeback = True
        self._report = BlkReport()
        self._native_path: NativeDataPath | None = None
        self._python_path: PythonDataPath | None = None
        if image.hidden:
            LOGGER.warning(
                "%s: the last %d bytes are no whole sector and stay hidden", image.path, image.hidden
            )

    # VirtioDevice

    def read_config(self, offset: int, size: int) -> bytes:
        """Bytes of `struct virtio_blk_config`."""
        block = self._image.block_size // SECTOR
        config = _CONFIG.pack(
            *(self._image.capacity, 0, self.queue_sizes[0] - 2),
            *(0, 0, 0),
            SECTOR,
            *(block.bit_length() - 1, 0, block, 0),
            *(self._writeback, 0, 0),
            *(MAX_DISCARD_SECTORS, MAX_RANGES, block),
            *(MAX_ZEROES_SECTORS, MAX_RANGES, 1),
            *(0, 0, 0),
        )
        return config[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver switches the write cache; everything else is read-only."""
        if offset == _WRITEBACK_OFFSET and self.features & BlkFeature.CONFIG_WCE and data[0] <= 1:
            self._writeback = bool(data[0])
            self._build_path()  # a batch in work goes on with the path it has

    def activate(self, context: DeviceContext) -> None:
        """Serve the request queue."""
        self._negotiated = context.features
        self._build_path()
        if self.native:
            context.serve_batches(0, self._run_batch)
        else:
            context.serve_chains(0, self._run_chain)

    def reset(self) -> None:
        """Write-back again, nothing negotiated."""
        self._negotiated = 0
        self._writeback = True

    def describe(self) -> Mapping[str, StateValue]:
        """No properties."""
        return {}

    def state(self) -> Mapping[str, StateValue]:
        """The cache mode; everything else is in the image and the queues."""
        return {"writeback": int(self._writeback), "capacity": self._image.capacity}

    def restore(self, state: Mapping[str, StateValue]) -> None:
        """Take the cache mode over.

        Raises:
            SavedStateError: the image has another size now, or a value is impossible; nothing changed.
        """
        if state.get("capacity") != self._image.capacity:
            raise SavedStateError("capacity", state.get("capacity"), f"{self._image.capacity} sectors")
        if state.get("writeback") not in (0, 1):
            raise SavedStateError("writeback", state.get("writeback"), "0 or 1")
        self._writeback = bool(state["writeback"])

    def close(self) -> None:
        """Close the image, which drops its lock. What the guest flushed is on the disk already."""
        self._image.close()

    # Beyond VirtioDevice

    def stats(self) -> BlkStats:
        """Counters of this moment; requests in work may be missing."""
        report = self._report
        return BlkStats(report.read_bytes, report.written_bytes, report.errors)

    def _view(self) -> DiskView:
        flags = DiskFlag(0)
        for feature, flag in _FLAGS.items():
            if (self._negotiated | self.features & BlkFeature.RO) & feature:
                flags |= flag
        # VIRTIO 1.2 section 5.2.6.2: neither cache control nor FLUSH negotiated means write-through.
        cached = (
            self._writeback
            if self._negotiated & BlkFeature.CONFIG_WCE
            else self._negotiated & BlkFeature.FLUSH
        )
        if not cached:
            flags |= DiskFlag.WRITE_THROUGH
        return DiskView(self.id, self._image.fd, self._image.capacity, flags, self._serial)

    def _build_path(self) -> None:
        view = self._view()
        if self.native:
            self._native_path = NativeDataPath(view, self._report)
        else:
            self._python_path = PythonDataPath(view, self._report)

    def _run_batch(self, memory: GuestMemory, batch: ChainBatch) -> bool:
        path = self._native_path
        assert path is not None
        sound = path.run(memory, batch)
        self._log_error()
        return sound

    def _run_chain(self, memory: GuestMemory, chain: DescriptorChain) -> int:
        path = self._python_path
        assert path is not None
        written = path.run(memory, chain)
        self._log_error()
        return written

    def _log_error(self) -> None:
        if self._report.error:
            self._log.warning("%s: I/O error, %s", self._image.path, self._report.take_error())
