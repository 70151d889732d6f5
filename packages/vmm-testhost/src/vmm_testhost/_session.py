"""One life of an emulated host: from QEMU's start to the status, whatever happens in between."""

import contextlib
import dataclasses
import logging
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

from ._errors import HostCrashError, HostTimeoutError
from ._qemu import Machine, Qemu
from ._relay import Relay

LOG_TAIL = 4000  # characters
LOG = logging.getLogger("vmm_testhost")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a command in the emulated host ended.

    Attributes:
        returncode: its exit status, 0-255; 128 + N when signal N killed it (130: Ctrl-C), 126 and 127 when it
            could not be executed or found, as shells do.
        stdout: what it wrote to stdout if that was captured, else None.
        stderr: the same for stderr.
        seconds: from the start of QEMU to the status.
        boot_seconds: from the start of QEMU to the start of the command.
    """

    returncode: int
    stdout: bytes | None
    stderr: bytes | None
    seconds: float
    boot_seconds: float


@dataclasses.dataclass(frozen=True)
class Streams:
    """Where the command's bytes come from and go to."""

    stdin: int | bytes | None
    stdout: int
    stderr: int
    terminal: bool
    captured: dict[bytes, list[bytes]] | None

    def take(self, kind: bytes, data: bytes) -> None:
        """Deliver bytes of stdout (kind ``o``) or stderr (``e``)."""
        if self.captured is not None:
            self.captured[kind].append(data)
        else:
            write_all(self.stdout if kind == b"o" else self.stderr, data)

    def output(self, kind: bytes) -> bytes | None:
        """Return what was captured of one stream."""
        return None if self.captured is None else b"".join(self.captured[kind])


def run_machine(
    machine: Machine, scratch: Path, streams: Streams, *, timeout: float | None, forward_signals: bool
) -> Result:
    """Run a machine to its end; QEMU is gone when this returns or raises.

    Raises:
        HostCrashError: No status came.
        HostTimeoutError: ``timeout`` seconds were over.
        KeyboardInterrupt: Without ``forward_signals``; the command got SIGINT.
    """
    begin = time.monotonic()
    try:
        return _live(machine, scratch, streams, begin, timeout, forward_signals=forward_signals)
    except HostCrashError as crash:
        # Linux patches its code while it boots, and QEMU's threads do not always see that in time: of some
        # hundred boots with several CPUs one panics. Nothing of the caller's has run by then.
        if crash.started or machine.cpus == 1:
            raise
        LOG.warning("%s; starting it once more", str(crash).partition("\n")[0])
    return _live(machine, scratch, streams, begin, timeout, forward_signals=forward_signals)


def _live(
    machine: Machine,
    scratch: Path,
    streams: Streams,
    begin: float,
    timeout: float | None,
    *,
    forward_signals: bool,
) -> Result:
    """Run a machine once; the time counts from ``begin``."""
    start = time.monotonic()
    ready = start
    qemu = Qemu(machine, stdin=streams.stdin is not None, log=scratch / "qemu")
    with contextlib.ExitStack() as stack:
        stack.callback(qemu.close)

        def on_ready() -> None:
            """Take note of the time; the terminal is the command's from here on."""
            nonlocal ready
            ready = time.monotonic()
            machine.initramfs.unlink()  # a killed run leaves two small logs behind, not this
            if streams.terminal:
                stack.enter_context(raw_terminal())

        relay = stack.enter_context(
            contextlib.closing(Relay(qemu, stdin=streams.stdin, deliver=streams.take, on_ready=on_ready))
        )
        if forward_signals:
            stack.enter_context(forwarded(relay))
        late = _relay_all(relay, begin + timeout if timeout is not None else None)
        if relay.status is None and relay.killed_by is None:
            qemu.wait()  # its own exit status tells more than that of our kill
    if late and timeout is not None:
        raise HostTimeoutError(timeout, streams.output(b"o"), streams.output(b"e"))
    status = relay.status
    if status is None:
        if relay.killed_by is None:
            raise _crash(qemu, scratch, relay.ready)
        status = 128 + relay.killed_by
    now = time.monotonic()
    return Result(status, streams.output(b"o"), streams.output(b"e"), now - start, ready - start)


def _relay_all(relay: Relay, until: float | None) -> bool:
    """Relay to the end; tell whether the command had to be stopped because its time was over."""
    try:
        if relay.run(until):
            return False
    except KeyboardInterrupt:
        relay.stop(signal.SIGINT)
        relay.run()
        raise
    relay.stop(signal.SIGTERM)
    relay.run()
    return True


def _crash(qemu: Qemu, scratch: Path, ready: bool) -> HostCrashError:
    when = "while the command ran" if ready else "before the command started"
    message = f"the emulated host ended {when}, without an exit status (QEMU's is {qemu.process.returncode})"
    return HostCrashError(message, _tail(scratch / "console"), _tail(scratch / "qemu"), started=ready)


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LOG_TAIL:].decode(errors="replace").replace("\r", "").strip()


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(fd, select.POLLOUT)
            waiter.poll()


@contextlib.contextmanager
def forwarded(relay: Relay) -> Iterator[None]:
    """Hand our signals to the relay."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
    before = {number: signal.signal(number, lambda got, _: relay.notify(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Let every key reach the command: the terminal inside gives Ctrl-C its meaning."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
