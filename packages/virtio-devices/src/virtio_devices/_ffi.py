"""The only module that touches the C core."""

from typing import TYPE_CHECKING, Literal, cast

from virtio_queue import ChainBatch
from vmm_memory import GuestMemory

from virtio_devices._blk_disk import ID_BYTES, BlkReport, DiskView
from virtio_devices._core import ffi, lib
from virtio_devices._errors import CoreError
from virtio_devices._net_port import NetCounters, PortFlag, Stop, Turn
from virtio_devices._pcap import PcapWriter

if TYPE_CHECKING:
    from virtio_devices._core import CData, Disk, PortData, PortReport, Report

__all__ = ("NativeDataPath", "NativePort", "lib")

_CAPTURE_BYTES = 1 << 18


def _new_disk(view: DiskView) -> "Disk":
    disk = cast("Disk", ffi.new("struct vblk_disk *"))
    disk.abi = lib.VBLK_ABI << 32 | ffi.sizeof("struct vblk_disk")
    disk.fd, disk.capacity, disk.flags = view.fd, view.capacity, int(view.flags)
    disk.max_discard_sectors, disk.max_zeroes_sectors = view.max_discard_sectors, view.max_zeroes_sectors
    disk.max_discard_ranges = disk.max_zeroes_ranges = view.max_ranges
    disk.has_id = view.serial is not None
    disk.id = (view.serial or b"").ljust(ID_BYTES, b"\0")
    return disk


class NativeDataPath:
    """Answers a batch of requests in one crossing into C; the GIL is free meanwhile."""

    def __init__(self, disk: DiskView, report: BlkReport) -> None:
        self.disk = disk
        self.report = report
        self._disk = _new_disk(disk)
        self._report = cast("Report", ffi.new("struct vblk_report *"))

    def run(self, memory: GuestMemory, batch: ChainBatch) -> bool:
        """Answer all requests of the batch.

        Returns:
            False when a chain of the batch is broken.

        Raises:
            CoreError: the batch or the memory map have another ABI than the core; nothing was done.
        """
        view = memory.access_map()
        # SAFETY: view and batch own what their addresses point to and live until the call is over.
        code = lib.vblk_process_at(view.address, batch.address, self._disk, self._report)
        if code < 0:
            raise CoreError(f"{self.disk.device}: batch of {len(batch)} requests", code)
        raw = self._report
        self.report.read_bytes += raw.read_bytes
        self.report.written_bytes += raw.written_bytes
        if raw.errors:
            self.report.errors += raw.errors
            self.report.error, self.report.error_type = raw.error, raw.error_type
            self.report.error_offset = raw.error_offset
        return raw.broken == 0


class NativePort:
    """One direction of a network device: a batch in one crossing into C; the GIL is free meanwhile."""

    def __init__(
        self,
        device: str,
        direction: Literal["receive", "transmit"],
        fd: int,
        counters: NetCounters,
        *,
        capture: PcapWriter | None,
        flags: PortFlag,
    ) -> None:
        self._device = device
        self._counters = counters
        self._capture = capture
        self._error = 0
        self._call = lib.vnet_receive_at if direction == "receive" else lib.vnet_transmit_at
        self._report = cast("PortReport", ffi.new("struct vnet_report *"))
        self._port = cast("PortData", ffi.new("struct vnet_port *"))
        # SAFETY: the structure points to these two; they live as long as it does.
        self._scratch = cast("CData", ffi.new("uint8_t[]", lib.VNET_SCRATCH))
        self._records = None if capture is None else cast("CData", ffi.new("uint8_t[]", _CAPTURE_BYTES))
        self._port.abi = lib.VNET_ABI << 32 | ffi.sizeof("struct vnet_port")
        self._port.fd, self._port.scratch = fd, self._scratch
        if capture is not None and self._records is not None:
            self._port.capture, self._port.capture_size = self._records, _CAPTURE_BYTES
            self._port.snaplen = capture.snaplen
        self.flags = flags

    @property
    def flags(self) -> PortFlag:
        """What was negotiated."""
        return PortFlag(self._port.flags)

    @flags.setter
    def flags(self, flags: PortFlag) -> None:
        self._port.flags = int(flags)

    @property
    def pending(self) -> bool:
        """Whether a received frame waits for more buffers."""
        return self._port.pending != 0

    def drop_pending(self) -> None:
        """Give that frame up."""
        self._port.pending = 0
        self._counters.oversized += 1

    def take_error(self) -> int:
        """Errno of the first frame that the host refused since the last call, 0 for none."""
        code, self._error = self._error, 0
        return code

    def run(self, memory: GuestMemory, batch: ChainBatch) -> Turn:
        """Move frames; `written` is set in the chains that are done.

        Raises:
            CoreError: the batch or the memory map have another ABI than the core; nothing was done.
        """
        view = memory.access_map()
        # SAFETY: view and batch own what their addresses point to and live until the call is over.
        code = self._call(view.address, batch.address, self._port, self._report)
        if code < 0:
            raise CoreError(f"{self._device}: batch of {len(batch)} frames", code)
        raw = self._report
        self._count(raw)
        if self._capture is not None and self._port.capture_used and self._records is not None:
            self._capture.append(memoryview(ffi.buffer(self._records, self._port.capture_used)))
        broken = batch.errors()[0] if raw.broken else None
        return Turn(raw.used, Stop(raw.stop), broken, raw.error if raw.stop == Stop.CLOSED else 0)

    def _count(self, raw: "PortReport") -> None:
        counters = self._counters
        counters.packets += raw.packets
        counters.bytes += raw.bytes
        counters.csum += raw.csum
        counters.gso += raw.gso
        counters.merged += raw.merged
        counters.invalid += raw.invalid
        counters.oversized += raw.oversized
        if raw.refused:
            counters.refused += raw.refused
            self._error = self._error or raw.error
