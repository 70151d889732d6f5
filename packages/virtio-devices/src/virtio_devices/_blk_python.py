"""The virtio-blk data path in Python: the readable specification of csrc/core.c, and a device of its own.

What can be reported in the status byte of a request is reported there; a request without a status byte in
guest memory cannot be answered, and makes the device ask for a reset.
"""

import enum
import errno
import os
import struct
from collections.abc import Iterator

from virtio_queue import DescriptorChain, Segment
from vmm_memory import GuestMemory

from virtio_devices._blk_disk import ID_BYTES, SECTOR, BlkReport, DiskFlag, DiskView
from virtio_devices._errors import RequestError
from virtio_devices._fallocate import PUNCH_HOLE, ZERO_RANGE, fallocate

_HEADER = struct.Struct("<IIQ")  # struct virtio_blk_req: type, reserved, sector
_RANGE = struct.Struct("<QII")  # struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags
_UNMAP = 1
_CHUNK = 1 << 20  # a guest must not be able to make this process hold more than this at a time
_U32 = (1 << 32) - 1
_MAX_DATA = _U32 - SECTOR  # the used length has 32 bits and counts the status byte too
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})


class RequestType(enum.IntEnum):
    """VIRTIO 1.2 section 5.2.6."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class RequestStatus(enum.IntEnum):
    """VIRTIO 1.2 section 5.2.6."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


_OUT_TYPES = (RequestType.OUT, RequestType.DISCARD, RequestType.WRITE_ZEROES)
_IN_TYPES = (RequestType.IN, RequestType.GET_ID)


class _Refused(Exception):  # noqa: N818 - control flow inside this module, not an error anybody sees
    def __init__(self, status: RequestStatus) -> None:
        self.status = status


def _pieces(
    segments: tuple[Segment, ...], writable: bool, skip: int, limit: int
) -> Iterator[tuple[int, int]]:
    """The (address, length) pieces of one direction, `limit` bytes beginning `skip` bytes in."""
    for addr, length, is_writable in segments:
        if is_writable != writable or limit == 0:
            continue
        if skip >= length:
            skip -= length
            continue
        part = min(length - skip, limit)
        yield addr + skip, part
        skip, limit = 0, limit - part


def _usable(
    memory: GuestMemory, segments: tuple[Segment, ...], writable: bool, skip: int, limit: int
) -> bool:
    pieces = _pieces(segments, writable, skip, limit)
    return all(memory.check_range(addr, length, write=writable) for addr, length in pieces)


def _gather(memory: GuestMemory, segments: tuple[Segment, ...], skip: int, limit: int) -> bytes:
    if not _usable(memory, segments, False, skip, limit):
        raise _Refused(RequestStatus.IOERR)
    return b"".join([memory.read(addr, length) for addr, length in _pieces(segments, False, skip, limit)])


def _status_address(memory: GuestMemory, segments: tuple[Segment, ...], writable: int) -> int | None:
    """Where the last writable byte is, if all the writable bytes are writable memory."""
    if not _usable(memory, segments, True, 0, writable):
        return None
    return next(
        (addr + size - 1 for addr, size, is_writable in reversed(segments) if is_writable and size), None
    )


def _pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if written == 0:
            raise OSError(errno.EIO, "write made no progress")
        view, offset = view[written:], offset + written


def _write_zeroes_slowly(fd: int, offset: int, length: int) -> None:
    zeroes = memoryview(bytes(min(length, _CHUNK)))
    while length:
        part = min(length, _CHUNK)
        _pwrite_all(fd, zeroes[:part], offset)
        offset, length = offset + part, length - part


def _zero(memory: GuestMemory, segments: tuple[Segment, ...], skip: int, limit: int) -> None:
    for addr, length in _pieces(segments, True, skip, limit):
        for start in range(0, length, _CHUNK):
            memory.write(addr + start, bytes(min(length - start, _CHUNK)))


class _Request:
    """One request while it is carried out."""

    def __init__(
        self, disk: DiskView, report: BlkReport, memory: GuestMemory, segments: tuple[Segment, ...]
    ) -> None:
        self._disk = disk
        self._report = report
        self._memory = memory
        self._segments = segments
        readable = sum(length for _addr, length, writable in segments if not writable)
        if readable < _HEADER.size:
            raise _Refused(RequestStatus.IOERR)
        # Copied once; everything below works on the copy.
        self.type, _reserved, self._sector = _HEADER.unpack(_gather(memory, segments, 0, _HEADER.size))
        self._data_out = readable - _HEADER.size
        self._data_in = sum(length for _addr, length, writable in segments if writable) - 1
        self.delivered = 0

    def execute(self) -> RequestStatus:
        """Do what the request asks; return what its status byte is to say (VIRTIO 1.2 section 5.2.6)."""
        try:
            kind = RequestType(self.type)
        except ValueError:
            return RequestStatus.UNSUPP
        self._check_directions(kind)
        handlers = {
            RequestType.IN: self._read,
            RequestType.OUT: self._write,
            RequestType.FLUSH: self._flush,
            RequestType.GET_ID: self._get_id,
            RequestType.DISCARD: self._discard,
            RequestType.WRITE_ZEROES: self._write_zeroes,
        }
        try:
            handlers[kind]()
        except OSError as error:
            self._host_error(error.errno or errno.EIO)
            return RequestStatus.IOERR
        return RequestStatus.OK

    def _host_error(self, code: int) -> None:
        report = self._report
        if report.error == 0:
            report.error, report.error_type = code, self.type
            report.error_offset = self._sector * SECTOR & ((1 << 64) - 1)
        report.errors += 1

    def _check_directions(self, kind: RequestType) -> None:
        if (self._data_out and kind not in _OUT_TYPES) or (self._data_in and kind not in _IN_TYPES):
            raise _Refused(RequestStatus.IOERR)
        if self._disk.flags & DiskFlag.READ_ONLY and kind in _OUT_TYPES:
            raise _Refused(RequestStatus.IOERR)

    def _need(self, flag: DiskFlag) -> None:
        if not self._disk.flags & flag:
            raise _Refused(RequestStatus.UNSUPP)

    def _on_disk(self, sector: int, count: int) -> bool:
        return sector + count <= self._disk.capacity

    def _check_transfer(self, size: int, writable: bool) -> None:
        if size % SECTOR or size > _MAX_DATA or not self._on_disk(self._sector, size // SECTOR):
            raise _Refused(RequestStatus.IOERR)
        # The other direction was checked before the request was begun.
        if not writable and not _usable(self._memory, self._segments, False, _HEADER.size, size):
            raise _Refused(RequestStatus.IOERR)

    def _read(self) -> None:
        self._check_transfer(self._data_in, True)
        offset = self._sector * SECTOR
        for addr, length in _pieces(self._segments, True, 0, self._data_in):
            done = 0
            while done < length:
                data = os.pread(self._disk.fd, min(length - done, _CHUNK), offset)
                if not data:
                    raise OSError(errno.EIO, "the image ends before its capacity: it was truncated")
                self._memory.write(addr + done, data)
                done, offset = done + len(data), offset + len(data)
                self.delivered += len(data)
                self._report.read_bytes += len(data)

    def _write(self) -> None:
        self._check_transfer(self._data_out, False)
        offset = self._sector * SECTOR
        for addr, length in _pieces(self._segments, False, _HEADER.size, self._data_out):
            for start in range(0, length, _CHUNK):
                part = min(length - start, _CHUNK)
                _pwrite_all(self._disk.fd, self._memory.read(addr + start, part), offset)
                offset += part
                self._report.written_bytes += part
        self._changed()

    def _changed(self) -> None:
        if self._disk.flags & DiskFlag.WRITE_THROUGH:
            os.fdatasync(self._disk.fd)

    def _flush(self) -> None:
        self._need(DiskFlag.FLUSH)
        os.fdatasync(self._disk.fd)

    def _get_id(self) -> None:
        if self._disk.serial is None:
            raise _Refused(RequestStatus.UNSUPP)
        if self._data_in < ID_BYTES:
            raise _Refused(RequestStatus.IOERR)
        serial = self._disk.serial.ljust(ID_BYTES, b"\0")
        for addr, length in _pieces(self._segments, True, 0, ID_BYTES):
            self._memory.write(addr, serial[self.delivered : self.delivered + length])
            self.delivered += length

    def _ranges(self, max_sectors: int) -> list[tuple[int, int, int]]:
        """Byte offset, length and flags of each segment; all are checked before the first is carried out."""
        if self._data_out % _RANGE.size or not 0 < self._data_out <= self._disk.max_ranges * _RANGE.size:
            raise _Refused(RequestStatus.IOERR)
        ranges = list(_RANGE.iter_unpack(_gather(self._memory, self._segments, _HEADER.size, self._data_out)))
        for sector, count, flags in ranges:
            if flags & ~_UNMAP or (flags and self.type == RequestType.DISCARD):
                raise _Refused(RequestStatus.UNSUPP)
            if count > max_sectors or not self._on_disk(sector, count):
                raise _Refused(RequestStatus.IOERR)
        return [(sector * SECTOR, count * SECTOR, flags) for sector, count, flags in ranges if count]

    def _discard(self) -> None:
        self._need(DiskFlag.DISCARD)
        for offset, length, _flags in self._ranges(self._disk.max_discard_sectors):
            try:
                fallocate(self._disk.fd, PUNCH_HOLE, offset, length)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:  # a discard is only a hint
                    raise
        self._changed()

    def _write_zeroes(self) -> None:
        self._need(DiskFlag.WRITE_ZEROES)
        for offset, length, flags in self._ranges(self._disk.max_zeroes_sectors):
            try:
                fallocate(self._disk.fd, PUNCH_HOLE if flags & _UNMAP else ZERO_RANGE, offset, length)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                _write_zeroes_slowly(self._disk.fd, offset, length)
        self._changed()


class PythonDataPath:
    """Answers one chain at a time through `GuestMemory` alone, whatever stands behind it."""

    def __init__(self, disk: DiskView, report: BlkReport) -> None:
        self.disk = disk
        self.report = report

    def run(self, memory: GuestMemory, chain: DescriptorChain) -> int:
        """Answer one request.

        Returns:
            The used length: all writable bytes. It promises that everything up to it was written and has to
            reach the status byte, which comes last, so what a failed request did not deliver is zeroed
            (VIRTIO 1.2 section 2.7.8.2).

        Raises:
            RequestError: no writable byte for the status, or one outside guest memory; nothing was done.
        """
        writable = chain.writable_bytes
        status_address = _status_address(memory, chain.segments, writable)
        if status_address is None:
            reason = f"no place for the status in {writable} writable bytes, or they are outside guest memory"
            raise RequestError(self.disk.device, chain.head, reason)
        delivered = 0
        try:
            request = _Request(self.disk, self.report, memory, chain.segments)
            status = request.execute()
            delivered = request.delivered
        except _Refused as refused:
            status = refused.status
        _zero(memory, chain.segments, delivered, writable - 1 - delivered)
        memory.write(status_address, bytes([status]))
        return min(writable, _U32)
