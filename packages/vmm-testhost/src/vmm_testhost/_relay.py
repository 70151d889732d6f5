"""The outer half of the relay: streams, signals and the exit status between us and the agent."""

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

from ._qemu import Qemu

CHUNK = 65536
GRACE = 5.0  # seconds between asking the command to end and killing the machine
# QEMU's SVM changes the set of pending interrupts without a lock at each exit of a nested guest
# (cs->interrupt_request in do_vmexit). Now and then a timer's interrupt, raised by another thread in that
# moment, is lost, and with it the next ones, which its handler would have asked for: the host sleeps, or its
# guest spins, for ever. Any later interrupt shows it the lost one too. So there is one from time to time.
PULSE = 0.2  # seconds


class Relay:
    """Moves bytes until the status arrives, QEMU dies, or we are told to stop.

    Attributes:
        status: exit status of the command, None while unknown.
        ready: the command has been started.
        killed_by: the signal after which we gave up on the host, None otherwise.
    """

    def __init__(
        self,
        qemu: Qemu,
        *,
        stdin: int | bytes | None,
        deliver: Callable[[bytes, bytes], None],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.status: int | None = None
        self.ready = False
        self.killed_by: int | None = None
        self._qemu = qemu
        self._source = stdin if isinstance(stdin, int) else None
        self._pending = stdin if isinstance(stdin, bytes) else b""
        self._deliver = deliver
        self._on_ready = on_ready
        self._sent = 0
        self._ended = False
        self._frames = b""
        self._interrupts = 0
        self._next_pulse = 0.0
        self._deadline: float | None = None
        self._deadline_signal = int(signal.SIGINT)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        qemu.io.setblocking(True)
        if qemu.stdin is not None:
            qemu.stdin.setblocking(False)

    def close(self) -> None:
        """Release the wake-up pipe."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def notify(self, number: int) -> None:
        """Take a signal sent to us; safe in a Python signal handler."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, bytes([number]))

    def stop(self, number: int, grace: float = GRACE) -> None:
        """Ask the command to end as ``number`` asks us, and kill the host after ``grace`` seconds."""
        if not self.ready:
            self.killed_by = number
            return
        self._send(b"k", bytes([number]))
        self._deadline = time.monotonic() + grace
        self._deadline_signal = number

    def resize(self, rows: int, columns: int) -> None:
        """Tell a terminal inside its size."""
        if self.ready:
            self._send(b"w", struct.pack("<HH", rows, columns))

    def run(self, until: float | None = None) -> bool:
        """Relay; returns False if the monotonic time ``until`` passed first."""
        while self.status is None and self.killed_by is None:
            now = time.monotonic()
            if until is not None and now >= until:
                return False
            if self._deadline is not None and now >= self._deadline:
                self.killed_by = self._deadline_signal
                break
            if now >= self._next_pulse:
                self._next_pulse = now + PULSE
                self._pulse()
            end = min(end for end in (until, self._deadline, self._next_pulse) if end is not None)
            for fd, event in self._poller().poll(max(1, int((end - now) * 1000) + 1)):
                if not self._serve(fd, event):
                    return True
        return True

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._qemu.io, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        if self._qemu.stdin is not None:
            if self._pending:
                poller.register(self._qemu.stdin, select.POLLOUT)
            elif self._ended:
                pass
            elif self._source is None:
                self._end_stdin()
            elif self.ready:
                poller.register(self._source, select.POLLIN)
        return poller

    def _serve(self, fd: int, event: int) -> bool:
        """Handle one event; False when QEMU is gone."""
        if fd == self._qemu.io.fileno():
            return self._frames_in()
        if fd == self._wake_read:
            for number in os.read(self._wake_read, 64):
                self._signal(number)
        elif self._qemu.stdin is not None and fd == self._qemu.stdin.fileno():
            self._feed()
        elif fd == self._source and event:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return True
            except OSError:  # a closed descriptor, or a terminal that hung up
                data = b""
            if data:
                self._pending = data
                self._feed()
            else:
                self._end_stdin()
        return True

    def _feed(self) -> None:
        if self._qemu.stdin is None:
            return
        try:
            done = self._qemu.stdin.send(self._pending)
        except BlockingIOError:
            return
        except OSError:  # QEMU is gone, which the other port will show
            self._pending, self._ended = b"", True
            return
        self._sent += done
        self._pending = self._pending[done:]

    def _end_stdin(self) -> None:
        """Tell the agent how long stdin was; closing the port instead would lose what QEMU still holds."""
        self._ended = True
        self._send(b"z", self._sent.to_bytes(8, "little"))

    def _frames_in(self) -> bool:
        try:
            data = self._qemu.io.recv(CHUNK)
        except ConnectionError:
            data = b""
        self._frames += data
        while len(self._frames) >= 5:
            size = 5 + int.from_bytes(self._frames[1:5], "little")
            if len(self._frames) < size:
                break
            self._frame(self._frames[:1], self._frames[5:size])
            self._frames = self._frames[size:]
        return bool(data)

    def _frame(self, kind: bytes, payload: bytes) -> None:
        if kind == b"r":
            self.ready = True
            self._on_ready()
        elif kind == b"x":
            self.status = payload[0]
        elif kind in (b"o", b"e"):
            self._deliver(kind, payload)

    def _signal(self, number: int) -> None:
        """Pass on the first two interrupts; a third, and anything else, ends the host."""
        if number == signal.SIGWINCH:
            with contextlib.suppress(OSError):
                size = os.get_terminal_size(1)
                self.resize(size.lines, size.columns)
        elif number == signal.SIGINT and self.ready:
            self._interrupts += 1
            if self._interrupts > 2:
                self.killed_by = number
            else:
                self._send(b"k", bytes([number]))
        else:
            self.stop(number)

    def _pulse(self) -> None:
        if self.ready:
            # Whole or not at all; a host that reads nothing has enough to read.
            with contextlib.suppress(OSError):
                self._qemu.io.send(b"n" + bytes(4), socket.MSG_DONTWAIT)

    def _send(self, kind: bytes, payload: bytes) -> None:
        with contextlib.suppress(OSError):  # a dead QEMU shows as end of file on the next read
            self._qemu.io.sendall(kind + len(payload).to_bytes(4, "little") + payload)
