"""Where the serial console ends: terminal, pseudo-terminal, file, socket, or nowhere.

A backend is an output call for the vCPU thread and, where there is input, a descriptor for an
event loop. Output never waits for a reader that may not be there: a pty or socket nobody reads
drops what exceeds its buffer, and says so once. A terminal or pipe is written to directly, so
its flow control holds the guest back and nothing is lost.
"""

import logging
import os
import select
import stat
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vm_device import EventFd, EventManager

from vmm_reference._config import SerialConfig, SerialMode
from vmm_reference._errors import ConfigError
from vmm_reference._files import open_for_output
from vmm_reference._serial_input import ConsoleInput, EscapeFilter, Feeder

_log = logging.getLogger(__name__)

_PIECE = 512  # a pipe or terminal that polls writable takes this much without blocking


class SerialBackend(Protocol):
    """One end of the serial line."""

    def write(self, data: bytes) -> None:
        """Send what the guest transmitted; never raises for a missing reader."""
        ...

    def attach(self, events: EventManager, port: ConsoleInput) -> None:
        """Start to feed input to `port` from the loop `events`."""
        ...

    def resume_input(self) -> None:
        """Go on after `enqueue` took less than it was given."""
        ...

    def detach(self) -> None:
        """Stop feeding, before the loop or the port goes; output still goes out."""
        ...

    def hang_up(self) -> None:
        """Give up on a reader that takes nothing: a write that waits for it returns, later output is lost."""
        ...

    def close(self) -> None:
        """Restore the terminal, remove the socket, close descriptors; after `detach`."""
        ...


class NullBackend:
    """Swallow output, give no input."""

    def write(self, data: bytes) -> None:
        """Drop `data`."""

    def attach(self, events: EventManager, port: ConsoleInput) -> None:
        """Do nothing: there is no input."""

    def resume_input(self) -> None:
        """Do nothing: there is no input."""

    def detach(self) -> None:
        """Do nothing: there is no input."""

    def hang_up(self) -> None:
        """Do nothing: no write ever waits."""

    def close(self) -> None:
        """Do nothing: there is nothing open."""


class FdBackend:
    """Write to one descriptor and read from another: a file, a pipe, a terminal, a pty."""

    def __init__(self, out_fd: int, in_fd: int | None, *, lossy: bool = False) -> None:
        """Use `out_fd` and `in_fd`; with `lossy` drop what would block."""
        self._out, self._in, self._lossy = out_fd, in_fd, lossy
        self._feeder: Feeder | None = None
        self._broken = False
        self._hung_up = EventFd()
        self._poll = select.poll()
        self._poll.register(out_fd, select.POLLOUT)
        self._poll.register(self._hung_up.fd, select.POLLIN)

    def write(self, data: bytes) -> None:
        """Send `data`; a vanished, given-up or (if lossy) full reader loses it, which is logged once."""
        view = memoryview(data)
        while view and self._writable():
            try:
                view = view[os.write(self._out, view[:_PIECE]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                self._lost(str(error.strerror))
                self._reader_gone()
                return
            except OSError as error:
                self._lost(str(error.strerror))
                return

    def _writable(self) -> bool:
        """Wait for room, so that a write never blocks where `hang_up` could not end it."""
        ready = dict(self._poll.poll(0 if self._lossy else None))
        if self._hung_up.fd in ready or self._out not in ready:
            self._lost("nobody reads it")
            return False
        return True

    def _lost(self, why: str) -> None:
        if not self._broken:
            self._broken = True
            _log.warning("serial output is lost: %s", why)

    def _reader_gone(self) -> None:
        """Nothing more: the guest goes on without a console."""

    def _keep(self, data: bytes) -> bytes:
        return data

    def attach(self, events: EventManager, port: ConsoleInput) -> None:
        """Feed what can be read to `port`."""
        if self._in is not None and _can_poll(self._in):
            self._feeder = Feeder(self._in, events, port, self._keep)

    def resume_input(self) -> None:
        """Go on feeding."""
        if self._feeder is not None:
            self._feeder.resume()

    def detach(self) -> None:
        """Stop feeding."""
        if self._feeder is not None:
            self._feeder.close()

    def hang_up(self) -> None:
        """Make a waiting write return."""
        self._hung_up.write()

    def close(self) -> None:
        """Close what is this object's own."""
        self._hung_up.close()


class TtyBackend(FdBackend):
    """Standard input and output; a terminal is in raw mode while attached, and Ctrl-A x ends the VMM."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        """Use this process's descriptors 0 and 1.

        Args:
            on_quit: called for Ctrl-A x; without a terminal to type it at, also when the reader of the
                output has gone (`vmm run … | head`), as nobody could end the machine any more.
        """
        super().__init__(1, 0)
        self._saved: list[int | list[bytes | int]] | None = None
        self._on_quit = on_quit
        self._escape = EscapeFilter(on_quit)
        self._is_terminal = os.isatty(0)

    def attach(self, events: EventManager, port: ConsoleInput) -> None:
        """Put the terminal into raw mode, only now that somebody will `close` this, and feed `port`."""
        if self._is_terminal and _in_foreground(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
        super().attach(events, port)

    def _reader_gone(self) -> None:
        if not self._is_terminal:
            self._on_quit()

    def _keep(self, data: bytes) -> bytes:
        return self._escape.feed(data) if self._is_terminal else data

    def close(self) -> None:
        """Put the terminal back as it was."""
        super().close()
        if self._saved is not None:
            # Not TCSADRAIN: a terminal that is held (Ctrl-S) would keep us here for ever.
            termios.tcsetattr(0, termios.TCSANOW, self._saved)
            self._saved = None


class PtyBackend(FdBackend):
    """A pseudo-terminal of our own; its path is told on stderr and in `path`."""

    def __init__(self) -> None:
        """Open it in raw mode; the slave stays open so that users may come and go."""
        self._main, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self._main, False)
        self.path = Path(os.ttyname(self._slave))
        super().__init__(self._main, self._main, lossy=True)
        print(f"vmm: serial console at {self.path}", file=sys.stderr)

    def close(self) -> None:
        """Close both ends."""
        super().close()
        os.close(self._main)
        os.close(self._slave)


class FileBackend(FdBackend):
    """Output to a file; no input."""

    def __init__(self, path: Path) -> None:
        """Truncate or create `path`; raises `ConfigError` when that fails."""
        try:
            fd = open_for_output(path)
        except OSError as error:
            raise ConfigError("--serial file", f"{path}: {error.strerror}") from None
        super().__init__(fd, None)

    def close(self) -> None:
        """Close the file."""
        super().close()
        os.close(self._out)


def open_backend(config: SerialConfig, on_quit: Callable[[], None]) -> SerialBackend | None:
    """Open what `--serial` names; None for "off" (the machine then has no serial port).

    Args:
        config: the option.
        on_quit: called when Ctrl-A x is typed at a terminal.

    Raises:
        ConfigError: the file or socket cannot be made.
    """
    match config.mode:
        case SerialMode.OFF:
            return None
        case SerialMode.NULL:
            return NullBackend()
        case SerialMode.TTY:
            return TtyBackend(on_quit)
        case SerialMode.PTY:
            return PtyBackend()
    assert config.path is not None
    if config.mode is SerialMode.FILE:
        return FileBackend(config.path)
    from vmm_reference._serial_socket import SocketBackend  # noqa: PLC0415 - for sockets only

    return SocketBackend(config.path)


def _in_foreground(fd: int) -> bool:
    """Whether setting the terminal's mode would not stop this process (SIGTTOU, from the background)."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal: nobody sends SIGTTOU for it


def _can_poll(fd: int) -> bool:
    """Whether epoll takes the descriptor: it refuses regular files and closed descriptors."""
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode) and not _is_null(fd)
    except OSError:
        return False


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
