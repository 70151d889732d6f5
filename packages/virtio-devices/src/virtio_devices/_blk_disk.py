"""What both data paths of virtio-blk know about the disk, and what they report."""

import enum
import errno
import os

import attrs

__all__ = ("BlkReport", "DiskFlag", "DiskView")

SECTOR = 512
ID_BYTES = 20
MAX_RANGES = 16
# A zeroed range may have to be written out (tmpfs cannot zero a range otherwise): 64 MiB at most per segment.
MAX_ZEROES_SECTORS = 1 << 17
MAX_DISCARD_SECTORS = 1 << 22


class DiskFlag(enum.IntFlag):
    """VBLK_* of csrc/core.h."""

    READ_ONLY = 1
    FLUSH = 2
    DISCARD = 4
    WRITE_ZEROES = 8
    WRITE_THROUGH = 16


@attrs.frozen
class DiskView:
    """One disk as a data path sees it; made anew when the driver negotiates or changes the cache mode.

    Attributes:
        device: id of the device, for errors.
        fd: the image; stays owned by the image.
        capacity: sectors of 512 bytes.
        flags: what the driver may do.
        serial: at most 20 bytes, None without one.
        max_discard_sectors, max_zeroes_sectors: most sectors of one range of such a request.
        max_ranges: most ranges of one such request.
    """

    device: str
    fd: int
    capacity: int
    flags: DiskFlag
    serial: bytes | None = None
    max_discard_sectors: int = MAX_DISCARD_SECTORS
    max_zeroes_sectors: int = MAX_ZEROES_SECTORS
    max_ranges: int = MAX_RANGES


@attrs.define
class BlkReport:
    """What a data path did so far; one per device, so that nothing is built per request.

    Attributes:
        read_bytes: moved from the image into the guest.
        written_bytes: moved from the guest into the image.
        errors: requests that the host failed.
        error: errno of the first failure since `take_error`, 0 for none.
        error_type: its request type.
        error_offset: its byte offset on the disk.
    """

    read_bytes: int = 0
    written_bytes: int = 0
    errors: int = 0
    error: int = 0
    error_type: int = 0
    error_offset: int = 0

    def take_error(self) -> str:
        """The first host failure since the last call, for the log."""
        code, self.error = self.error, 0
        name = errno.errorcode.get(code, str(code))
        return f"request type {self.error_type} at byte {self.error_offset:#x}: {name} ({os.strerror(code)})"
