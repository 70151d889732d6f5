"""The way in of a serial console: what is typed, filtered, and fed no faster than the guest takes it."""

import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from vm_device import EventManager

_ESCAPE: Final = 0x01  # Ctrl-A
_CHUNK: Final = 4096


class ConsoleInput(Protocol):
    """Who takes what is typed: the guest's serial port, or a relay."""

    def enqueue(self, data: bytes) -> int:
        """Take bytes; return how many fitted."""
        ...


class EscapeFilter:
    """Find Ctrl-A x in typed bytes: it ends the VMM; Ctrl-A Ctrl-A sends one Ctrl-A to the guest."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        """Call `on_quit` for Ctrl-A x."""
        self._on_quit = on_quit
        self._escaped = False

    def feed(self, data: bytes) -> bytes:
        """Return what is meant for the guest."""
        out = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte in b"xX":
                    self._on_quit()
                elif byte == _ESCAPE:
                    out.append(byte)
                else:
                    out += bytes((_ESCAPE, byte))
            elif byte == _ESCAPE:
                self._escaped = True
            else:
                out.append(byte)
        return bytes(out)


class Feeder:
    """Move input from a descriptor to a port, no faster than the port takes it.

    Everything happens on the event loop, so nothing is held while the port is called: the port has a
    lock of its own, under which its output may wait for a reader.
    """

    def __init__(
        self,
        fd: int,
        events: EventManager,
        port: ConsoleInput,
        keep: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Start to read `fd`.

        Args:
            fd: readable descriptor that an event loop takes; stays the caller's.
            events: the loop.
            port: who takes what is read.
            keep: returns what of it is meant for the port.
        """
        self._fd, self._events, self._port = fd, events, port
        self._keep = keep
        self._pending = b""
        self._watching = False
        self._closed = False
        self._lock = threading.Lock()  # of the two flags above
        self._watch()

    def _watch(self) -> None:
        with self._lock:
            if not self._watching and not self._closed:
                self._watching = True
                self._events.add(self._fd, self._readable)

    def _unwatch(self) -> None:
        """Stop watching; on the loop only, where removing waits for nobody."""
        with self._lock:
            if self._watching:
                self._watching = False
                self._events.remove(self._fd)

    def _readable(self, _mask: int) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""  # a pty whose last user went away reads EIO
        if not data:
            self._unwatch()
            return
        self._pending += self._keep(data)
        self._offer()

    def _offer(self) -> None:
        if self._closed:
            return
        self._pending = self._pending[self._port.enqueue(self._pending) :]
        if self._pending:
            self._unwatch()
        else:
            self._watch()

    def resume(self) -> None:
        """Go on, the port has room again; from any thread."""
        if self._pending and not self._closed:
            self._events.call_soon(self._offer)

    def close(self) -> None:
        """Stop for good; once it returns the descriptor is not touched any more.

        Off the loop it waits for a callback that runs, so the port's lock must not be held.
        """
        with self._lock:
            self._closed = True
            watching, self._watching = self._watching, False
        if watching:
            self._events.remove(self._fd)
