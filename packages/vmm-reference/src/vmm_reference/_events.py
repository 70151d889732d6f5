"""The event monitor: one JSON object a line, with the fields of Cloud Hypervisor's."""

import errno
import fcntl
import json
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmm_reference._errors import ConfigError
from vmm_reference._files import open_for_output

if TYPE_CHECKING:
    from vmm_reference._config_events import EventMonitorConfig

_log = logging.getLogger(__name__)

_PIECE: Final = 512  # PIPE_BUF of POSIX: what a pipe that polls writable takes without blocking
_PATIENCE_MS: Final = 200
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class EventMonitor:
    """Write what happens to a descriptor, from any thread, a whole line at a time.

    It neither fails nor blocks the machine: a reader that is gone ends it with one warning, events
    that a full pipe does not take in a moment, or a full disk, are dropped and counted in the next one
    ("dropped").
    """

    def __init__(self, fd: int | None) -> None:
        """Write to `fd`, which this object owns; None writes nowhere."""
        self._fd = fd
        self._lock = threading.Lock()
        self._start = time.monotonic_ns()
        self._dropped = 0
        self._full = False

    @classmethod
    def open(cls, config: "EventMonitorConfig | None") -> "EventMonitor":
        """Open what `config` names; with None, a monitor that writes nowhere.

        Raises:
            ConfigError: it cannot be opened; nothing was created.
        """
        return cls(None if config is None else open_monitor_fd(config))

    def emit(
        self, source: str, event: str, properties: Mapping[str, str | int | float] | None = None
    ) -> None:
        """Write one event.

        Args:
            source: "vmm", "vm", or a device's id.
            event: what happened, such as "booted".
            properties: details.
        """
        if self._fd is None:
            return
        elapsed = time.monotonic_ns() - self._start
        record: dict[str, object] = {
            "timestamp": {"secs": elapsed // 10**9, "nanos": elapsed % 10**9},
            "source": source,
            "event": event,
            "properties": dict(properties or {}),
        }
        with self._lock:
            if self._dropped:
                record["dropped"] = self._dropped
            self._write(json.dumps(record).encode() + b"\n")

    def relay(self, line: bytes) -> None:
        """Write a line that another monitor made, newline included."""
        with self._lock:
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self._fd is None:
            return
        if not _writable(self._fd):
            self._dropped += 1
            return
        start = _place_in_file(self._fd)
        try:
            # What was begun is finished, or the next line would be glued to half of this one.
            write_all(self._fd, line)
            self._dropped = 0
        except OSError as error:
            if error.errno in _FULL and start is not None:
                self._take_back(self._fd, start, error)
                return
            _log.warning("events are lost from here on: %s", error.strerror)
            os.close(self._fd)
            self._fd = None

    def _take_back(self, fd: int, start: int, error: OSError) -> None:
        """Drop a line that a full disk took only half of; there may be room for the next."""
        os.ftruncate(fd, start)
        os.lseek(fd, start, os.SEEK_SET)
        self._dropped += 1
        if not self._full:
            self._full = True
            _log.warning("events are lost while this lasts: %s", error.strerror)

    def close(self) -> None:
        """Close the descriptor; later events vanish."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def open_monitor_fd(config: "EventMonitorConfig") -> int:
    """Return a descriptor of its own for what `config` names.

    Raises:
        ConfigError: it cannot be opened; nothing was created.
    """
    if config.fd is not None:
        try:
            if fcntl.fcntl(config.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise ConfigError("--event-monitor fd", f"{config.fd}: not open for writing")
            return os.dup(config.fd)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such descriptor"
            raise ConfigError("--event-monitor fd", f"{config.fd}: {reason}") from None
    assert config.path is not None
    try:
        return open_for_output(config.path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError("--event-monitor path", f"{config.path}: {reason}") from None


def _place_in_file(fd: int) -> int | None:
    """Return where the next write goes, in a regular file that is not others' to append to as well."""
    appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    return None if appends or not stat.S_ISREG(os.fstat(fd).st_mode) else os.lseek(fd, 0, os.SEEK_CUR)


def _writable(fd: int, patience_ms: int = _PATIENCE_MS) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(patience_ms))


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`; raises OSError (EAGAIN when a reader takes nothing for a second)."""
    while data:
        if not _writable(fd, 5 * _PATIENCE_MS):
            raise BlockingIOError(None, "the reader takes nothing any more")
        try:
            data = data[os.write(fd, data[:_PIECE]) :]
        except BlockingIOError:
            continue
