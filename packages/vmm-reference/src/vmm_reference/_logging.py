"""Logging of the command: levels from `-v`, and a lid on what a guest can make us print."""

import logging
import sys
import threading
import time
from typing import Final

_MOST_KINDS: Final = 256
_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


class RateLimit(logging.Filter):
    """Pass at most `burst` records of one kind in `period` seconds, then count them silently.

    A kind is a logger and a message template: a guest that repeats a mistake with ever new values
    still makes one kind. The number suppressed is told with the next record that passes.
    """

    def __init__(self, burst: int = 10, period: float = 5.0) -> None:
        """Limit to `burst` (≥ 1) records in `period` seconds."""
        super().__init__()
        self._burst, self._period = burst, period
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()  # logging calls filters outside its own

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to print the record; may append the number suppressed to its message."""
        with self._lock:
            return self._pass(record, time.monotonic())

    def _pass(self, record: logging.LogRecord, now: float) -> bool:
        kind = (record.name, str(record.msg))
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()  # messages made without a template must not fill our memory
        start, count = self._kinds.get(kind, (now, 0))
        if now - start >= self._period:
            if count > self._burst:
                record.msg = f"{record.msg} ({count - self._burst} like this were suppressed)"
            start, count = now, 0
        self._kinds[kind] = (start, count + 1)
        return count < self._burst


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Print with carriage returns: a terminal in raw mode does not add them."""

    terminator = "\r\n" if sys.stderr.isatty() else "\n"


def set_up(verbosity: int) -> None:
    """Log to standard error: warnings, with one -v progress, with two everything."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler(sys.stderr)
    handler.addFilter(RateLimit())
    handler.setFormatter(logging.Formatter("vmm: %(relativeCreated)6.0f ms %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
