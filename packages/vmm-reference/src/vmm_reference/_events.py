"""The event monitor: one JSON object a line, with the fields of Cloud Hypervisor's."""

import json
import os
import threading
import time
from collections.abc import Mapping

from vmm_reference._config import EventMonitorConfig
from vmm_reference._errors import ConfigError


class EventMonitor:
    """Write what happens to a descriptor, from any thread, a whole line at a time."""

    def __init__(self, fd: int | None) -> None:
        """Write to `fd`, which this object owns; None writes nowhere."""
        self._fd = fd
        self._lock = threading.Lock()
        self._start = time.monotonic_ns()

    @classmethod
    def open(cls, config: EventMonitorConfig | None) -> "EventMonitor":
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
        timestamp = {"secs": elapsed // 10**9, "nanos": elapsed % 10**9}
        record = {
            "timestamp": timestamp,
            "source": source,
            "event": event,
            "properties": dict(properties or {}),
        }
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._fd is not None:
                _write_all(self._fd, line)

    def close(self) -> None:
        """Close the descriptor; later events vanish."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def open_monitor_fd(config: EventMonitorConfig) -> int:
    """Return a descriptor of its own for what `config` names.

    Raises:
        ConfigError: it cannot be opened; nothing was created.
    """
    if config.fd is not None:
        try:
            return os.dup(config.fd)
        except OSError as error:
            raise ConfigError("--event-monitor fd", f"{config.fd}: {error.strerror}") from None
    assert config.path is not None
    try:
        # A FIFO is opened for both ways, so that no reader has to be there first.
        flags = os.O_RDWR if config.path.is_fifo() else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return os.open(config.path, flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError("--event-monitor path", f"{config.path}: {error.strerror}") from None


def _write_all(fd: int, data: bytes) -> None:
    # A reader that went away must not take the machine with it.
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        pass
