"""Where a UART's transmitted bytes go: at once, or in batches."""

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

_log = logging.getLogger("vm_device.serial")

_BATCH: Final = 1024


class Writer(Protocol):
    """Anything with a binary write, e.g. sys.stdout.buffer."""

    def write(self, data: bytes, /) -> object:
        """Take bytes; a raw file may return a short count."""
        ...


class TxBatch:
    """Collects characters up to a newline or 1024 bytes when `defer` is given; the owner holds the lock."""

    __slots__ = ("_asked", "_data", "_defer", "_flush_later", "_out", "lost")

    def __init__(
        self,
        out: Callable[[bytes], object] | Writer,
        flush_later: Callable[[], None],
        defer: Callable[[Callable[[], None]], object] | None,
    ) -> None:
        self._out: Callable[[bytes], object] = out if callable(out) else out.write
        self._flush_later = flush_later
        self._defer = defer
        self._data = bytearray()
        self._asked = False  # a deferred flush is under way; one at a time serves all batches
        self.lost = 0

    def put(self, char: int) -> None:
        """Take a character; write the batch when it is complete, or ask for a flush later."""
        self._data.append(char)
        if self._defer is None or char == 0x0A or len(self._data) >= _BATCH:
            self.flush()
        elif not self._asked:
            self._asked = True
            self._defer(self._flush_later)

    def flush_deferred(self) -> None:
        """Write what there is; called when the flush that was asked for is due."""
        self._asked = False
        self.flush()

    def flush(self) -> None:
        """Write what there is; what cannot be written is counted in `lost`."""
        data = bytes(self._data)
        self._data.clear()
        while data:
            try:
                written = self._out(data)
            except OSError as error:
                self._lose(len(data), str(error))
                return
            # Only a raw file writes less than it was given; others return None or the full length.
            if not isinstance(written, int) or written >= len(data):
                return
            if written <= 0:
                self._lose(len(data), f"write returned {written}")
                return
            data = data[written:]

    def _lose(self, count: int, reason: str) -> None:
        if not self.lost:
            _log.warning("serial output lost (%s); further losses are only counted", reason)
        self.lost += count


class Transmitter:
    """The sending half that UARTs have in common; `_tx` is used under `_lock`, the device's own."""

    def __init__(
        self,
        out: Callable[[bytes], object] | Writer,
        defer: Callable[[Callable[[], None]], object] | None,
    ) -> None:
        self._lock = threading.RLock()
        self._tx = TxBatch(out, self._flush_deferred, defer)

    def flush(self) -> None:
        """Hand collected output to `out` now; a no-op when there is none."""
        with self._lock:
            self._tx.flush()

    def _flush_deferred(self) -> None:
        with self._lock:
            self._tx.flush_deferred()

    @property
    def tx_lost(self) -> int:
        """Bytes `out` refused since the device was made."""
        return self._tx.lost
