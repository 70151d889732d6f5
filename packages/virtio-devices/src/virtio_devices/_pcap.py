"""Frames as a pcap file (draft-ietf-opsawg-pcap, with nanoseconds), for tcpdump and its relatives."""

import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from virtio_devices._errors import CaptureError
from virtio_devices._log import LOGGER
from virtio_devices._net_port import BODY_MAX

__all__ = ("PcapWriter",)

_FILE_HEADER: Final = struct.Struct("<IHHiIII")
_RECORD: Final = struct.Struct("<IIII")
_NANOSECONDS: Final = 0xA1B23C4D
_ETHERNET: Final = 1
_BUFFER: Final = 256 << 10
_FLUSH_AFTER: Final = 1.0  # seconds: whoever looks at the file of a running machine sees it grow


@final
class PcapWriter:
    """A pcap file: link type Ethernet, timestamps in nanoseconds, both directions in the order they came.

    Readable at the latest after `close`. A file that cannot be written any more ends the capture with one log
    line, never the traffic. One thread at a time.

    Args:
        path: made anew (mode 0600), or a FIFO that somebody reads.
        snaplen: bytes of a frame that are kept at most, 1 to 65554.
        on_failure: called once, with the reason, when the capture ends early.

    Raises:
        CaptureError: the file cannot be opened or is not of a kind that can be written.
        ValueError: snaplen is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        snaplen: int = BODY_MAX,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        if not 1 <= snaplen <= BODY_MAX:
            raise ValueError(f"snaplen={snaplen}: must be from 1 to {BODY_MAX}")
        self.path = os.fspath(path)
        self.snaplen = snaplen
        self.on_failure = on_failure
        self.failed: str | None = None
        try:
            self._fd = _open(self.path)
        except OSError as error:
            raise CaptureError(self.path, f"cannot be written: {error.strerror}", error.errno) from None
        self._buffer = bytearray()
        self._flushed = time.monotonic()
        self.append(_FILE_HEADER.pack(_NANOSECONDS, 2, 4, 0, 0, snaplen, _ETHERNET))

    def add(self, frame: bytes | memoryview, *, when_ns: int | None = None) -> None:
        """Capture one frame.

        Args:
            frame: from the Ethernet header on.
            when_ns: nanoseconds since 1970; None for now.
        """
        seconds, rest = divmod(time.time_ns() if when_ns is None else when_ns, 10**9)
        kept = frame[: self.snaplen]
        self.append(_RECORD.pack(seconds & 0xFFFF_FFFF, rest, len(kept), len(frame)) + bytes(kept))

    def append(self, records: bytes | memoryview) -> None:
        """Write whole records as they stand in the file, as the core makes them."""
        if self._fd < 0:
            return
        self._buffer += records
        now = time.monotonic()
        if len(self._buffer) >= _BUFFER or now - self._flushed > _FLUSH_AFTER:
            self._flushed = now
            self.flush()

    def flush(self) -> None:
        """Write what is buffered; a failure ends the capture."""
        data = memoryview(self._buffer)
        self._buffer = bytearray()
        try:
            while data and self._fd >= 0:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.failed = error.strerror or str(error)
            LOGGER.error("%s: %s; frames are not captured from here on", self.path, self.failed)
            self._close()
            if self.on_failure is not None:
                self.on_failure(self.failed)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Write what is buffered and close the file; idempotent."""
        self.flush()
        self._close()


def _open(path: str) -> int:
    fifo = Path(path).is_fifo()
    # A FIFO is opened for both ways, or opening would wait for a reader, who must not hold traffic up later.
    how = os.O_RDWR | os.O_NONBLOCK if fifo else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
    fd = os.open(path, how | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return fd
    os.close(fd)
    raise OSError(None, "is neither a file nor a FIFO")
