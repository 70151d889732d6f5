"""The only module that touches the C core."""

from typing import TYPE_CHECKING, cast

from virtio_queue import ChainBatch
from vmm_memory import GuestMemory

from virtio_devices._blk_disk import ID_BYTES, BlkReport, DiskView
from virtio_devices._core import ffi, lib
from virtio_devices._errors import CoreError

if TYPE_CHECKING:
    from virtio_devices._core import Disk, Report

__all__ = ("NativeDataPath", "lib")


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
