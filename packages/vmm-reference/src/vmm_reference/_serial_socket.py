"""A serial console on a Unix socket."""

import errno
import logging
import socket
import threading
from pathlib import Path
from typing import Final

from vm_device import EventManager

from vmm_reference._errors import ConfigError
from vmm_reference._files import socket_left_over
from vmm_reference._serial_input import ConsoleInput, Feeder

_log = logging.getLogger(__name__)

_BUFFER: Final = 1 << 20
_RETRY_SECONDS: Final = 0.02
_LINGER_SECONDS: Final = 1.0


class SocketBackend:
    """A Unix socket with one client at a time, the newest; output is kept while there is none.

    Clients come and go on the event loop. The guest's side (`write`) only appends and sends what the
    client takes at once, under a lock that nothing waits in.
    """

    def __init__(self, path: Path) -> None:
        """Listen at `path`; raises `ConfigError` when it is taken or cannot be bound.

        A socket there that nobody listens at was left by a process that was killed: it is replaced.
        """
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _bind(self._listener, path)
            self._listener.listen(1)
        except (OSError, ValueError) as error:
            self._listener.close()
            reason = getattr(error, "strerror", None) or error
            raise ConfigError("--serial socket", f"{path}: {reason}; choose a path that is free") from None
        self._listener.setblocking(False)
        self._client: socket.socket | None = None
        self._deaf = False
        self._backlog = bytearray()
        self._retrying = False
        self._lock = threading.Lock()
        self._feeder: Feeder | None = None
        self._events: EventManager | None = None
        self._port: ConsoleInput | None = None

    def write(self, data: bytes) -> None:
        """Send to the client, or keep up to 1 MiB for the next one."""
        with self._lock:
            self._backlog += data
            excess = len(self._backlog) - _BUFFER
            if excess > 0:
                del self._backlog[:excess]
            self._flush()

    def _flush(self) -> None:
        """Send what the client takes at once; the rest goes soon, though the guest may say no more."""
        if self._client is None or self._deaf:
            return
        try:
            while self._backlog:
                del self._backlog[: self._client.send(self._backlog)]
        except BlockingIOError:
            if self._events is not None and not self._retrying:
                self._retrying = True
                self._events.call_later(_RETRY_SECONDS, self._retry)
        except OSError:
            # Closed when the next one comes: only the loop may take the feeder from the descriptor.
            self._deaf = True

    def _retry(self) -> None:
        with self._lock:
            self._retrying = False
            self._flush()

    def attach(self, events: EventManager, port: ConsoleInput) -> None:
        """Accept clients and feed what they send to `port`."""
        self._events, self._port = events, port
        events.add(self._listener.fileno(), self._accept)

    def _accept(self, _mask: int) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        events, port = self._events, self._port
        if events is None or port is None:
            client.close()
            return
        self._drop_client()
        with self._lock:
            self._client = client
            self._flush()
        self._feeder = Feeder(client.fileno(), events, port)

    def _drop_client(self) -> None:
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.close()
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client, self._deaf = None, False

    def resume_input(self) -> None:
        """Go on feeding."""
        feeder = self._feeder
        if feeder is not None:
            feeder.resume()

    def detach(self) -> None:
        """Accept nobody any more and feed nothing; the client still gets output."""
        events, self._events = self._events, None
        if events is not None:
            events.remove(self._listener.fileno())
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.close()

    def hang_up(self) -> None:
        """Do nothing: no write ever waits."""

    def close(self) -> None:
        """Send the client what is left (for a second at most), close, and remove the socket."""
        with self._lock:
            if self._client is not None and self._backlog and not self._deaf:
                self._client.settimeout(_LINGER_SECONDS)
                try:
                    self._client.sendall(self._backlog)
                except OSError:
                    _log.warning("serial output is lost: the client at %s does not read", self._path)
        self._drop_client()
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        listener.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not socket_left_over(path):
            raise
        path.unlink()
        listener.bind(str(path))
