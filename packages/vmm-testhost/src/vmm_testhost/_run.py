"""Run one command in an emulated host."""

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ._apt import ensure_tools
from ._errors import HostCrashError, HostTimeoutError
from ._initramfs import base_archive, run_archive, shell_setup
from ._kernel import HOST_KERNEL, kernel
from ._qemu import Machine, Qemu
from ._relay import GRACE, Relay

MIN_MEMORY = 512
MAX_CPUS = 64
PASSED = ("CI", "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER", "VIRTUAL_ENV")
PASSED_PREFIXES = (
    "ASAN_",
    "COLUMNS",
    "COVERAGE_",
    "HYPOTHESIS_",
    "LC_",
    "LINES",
    "LSAN_",
    "PYTEST_",
    "PYTHON",
)
PASSED_PREFIXES += ("UBSAN_", "VMM_")
LOG_TAIL = 4000  # characters


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


def prepare() -> None:
    """Fetch and build all that a launch needs, so that later ones work offline.

    Raises:
        SetupError: Something is missing and cannot be fetched; ``cure`` is the command to run.
    """
    ensure_tools()
    host = kernel(HOST_KERNEL)
    host.vmlinux()
    base_archive(host)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    results: str | os.PathLike[str] | None = None,
    writable: Sequence[str | os.PathLike[str]] = (),
    stdin: int | bytes | None = None,
    stdout: int = 1,
    stderr: int = 2,
    capture: bool = False,
    tty: bool = False,
    timeout: float | None = None,
    memory: int = 3072,
    cpus: int = 2,
    extra_qemu_args: Sequence[str] = (),
    forward_signals: bool = False,
) -> Result:
    """Run a command in a fresh emulated host that has a complete KVM, and wait for it.

    The host sees this machine's files at the same paths, read-only under a layer in its memory: what the
    command writes is lost, except below ``results`` and ``writable``. The command runs as root with
    VMM_TESTHOST=1 in its environment, a loopback interface and no network.

    Args:
        argv: the command and its arguments; searched in PATH.
        cwd: working directory, ours by default.
        env: variables added to the selected ones of ours (PATH, HOME, LANG, PYTHON*, PYTEST_*, VMM_*, ...).
        results: a directory, created if missing, that keeps what is written; in $VMM_TESTHOST_RESULTS.
        writable: existing directories and files that keep what is written, at the same paths.
        stdin: a file descriptor to relay, bytes to feed, or None for an empty one.
        stdout: the file descriptor that gets the command's stdout.
        stderr: the file descriptor that gets the command's stderr; with ``tty`` both go to ``stdout``.
        capture: keep both streams in the result instead.
        tty: give the command a terminal; the caller puts its own into raw mode.
        timeout: seconds for the whole run, boot included; None for no limit.
        memory: RAM of the host in MiB, at least 512.
        cpus: virtual CPUs of the host, 1 to 64.
        extra_qemu_args: appended to QEMU's command line.
        forward_signals: take SIGINT, SIGTERM, SIGHUP and SIGWINCH of this process while the command runs
            (main thread only); SIGINT reaches the command, the others end it.

    Returns:
        The exit status and, if captured, the output.

    Raises:
        ValueError: Empty command, or memory or cpus out of range.
        FileNotFoundError: ``cwd`` or a writable path does not exist.
        SetupError: QEMU or the kernel cannot be had; ``cure`` is the command to run.
        HostCrashError: The host ended without a status; the kernel log's end is attached.
        HostTimeoutError: The command was stopped after ``timeout``.
        KeyboardInterrupt: Without ``forward_signals``: the command got SIGINT and the host is gone.
    """
    command = [os.fspath(arg) for arg in argv]
    if not command:
        raise ValueError("argv is empty: name a command to run in the emulated host")
    if memory < MIN_MEMORY:
        raise ValueError(f"memory {memory} MiB: the host needs at least {MIN_MEMORY} MiB")
    if not 1 <= cpus <= MAX_CPUS:
        raise ValueError(f"cpus {cpus} is not in 1..{MAX_CPUS}")
    directory = Path(cwd or Path.cwd()).resolve(strict=True)
    kept = [Path(path).resolve(strict=True) for path in writable]
    variables = inner_environment(os.environ) | dict(env or {}) | {"VMM_TESTHOST": "1"}
    if results is not None:
        Path(results).mkdir(parents=True, exist_ok=True)
        kept.append(Path(results).resolve())
        variables["VMM_TESTHOST_RESULTS"] = str(kept[-1])
    shares, binds = plan_shares(kept)
    description = {
        "ARGV": command,
        "CWD": str(directory),
        "ENV": variables,
        "STDIN": stdin is not None,
        "TTY": terminal_size() if tty else b"",
    }
    prepare()
    host = kernel(HOST_KERNEL)
    python = str(Path(sys.executable).resolve())
    archive = run_archive(shell_setup(python, host.modules, binds), description)
    captured: dict[bytes, list[bytes]] = {b"o": [], b"e": []}
    sinks = _sinks(captured if capture else None, stdout, stderr)
    with tempfile.TemporaryDirectory(prefix="vmm-testhost-") as folder:
        scratch = Path(folder)
        initramfs = scratch / "initramfs"
        initramfs.write_bytes(base_archive(host).read_bytes() + archive)
        machine = Machine(
            kernel=host.vmlinux(),
            initramfs=initramfs,
            console=scratch / "console",
            memory=memory,
            cpus=cpus,
            shares=shares,
            extra=tuple(extra_qemu_args),
        )
        return _run_machine(
            machine, scratch, stdin, sinks, captured if capture else None, timeout, forward_signals
        )


def _run_machine(
    machine: Machine,
    scratch: Path,
    stdin: int | bytes | None,
    sinks: dict[bytes, Callable[[bytes], None]],
    captured: dict[bytes, list[bytes]] | None,
    timeout: float | None,
    forward_signals: bool,
) -> Result:
    start = time.monotonic()
    started: list[float] = []
    qemu = Qemu(machine, stdin=stdin is not None, log=scratch / "qemu")
    try:
        relay = Relay(qemu, stdin=stdin, sinks=sinks, on_ready=lambda: started.append(time.monotonic()))
        with contextlib.closing(relay), _signals(relay) if forward_signals else contextlib.nullcontext():
            try:
                in_time = relay.run(start + timeout if timeout is not None else None)
            except KeyboardInterrupt:
                relay.stop(signal.SIGINT)
                relay.run()
                raise
            if not in_time:
                relay.stop(signal.SIGTERM)
                relay.run()
    finally:
        qemu.close()
    output = tuple(b"".join(captured[key]) if captured is not None else None for key in (b"o", b"e"))
    if not in_time and timeout is not None:
        raise HostTimeoutError(timeout, *output)
    status = relay.status
    if status is None and relay.killed_by is not None:
        status = 128 + relay.killed_by
    if status is None:
        raise _crash(qemu, scratch, relay.ready)
    now = time.monotonic()
    return Result(status, *output, now - start, (started[0] if started else now) - start)


def _crash(qemu: Qemu, scratch: Path, ready: bool) -> HostCrashError:
    when = "while the command ran" if ready else "before the command started"
    logs = [_tail(scratch / name) for name in ("console", "qemu")]
    return HostCrashError(
        f"the emulated host ended {when} (QEMU exit status {qemu.process.returncode})", *logs
    )


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LOG_TAIL:].decode(errors="replace").replace("\r", "").strip()


def _sinks(
    captured: dict[bytes, list[bytes]] | None, stdout: int, stderr: int
) -> dict[bytes, Callable[[bytes], None]]:
    if captured is not None:
        return {kind: chunks.append for kind, chunks in captured.items()}
    return {b"o": lambda data: _write_all(stdout, data), b"e": lambda data: _write_all(stderr, data)}


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _signals(relay: Relay) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
    before = {number: signal.signal(number, lambda got, _: relay.notify(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def inner_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that pass into the host: those that steer programs, none that name its sessions."""
    return {key: value for key, value in environ.items() if key in PASSED or key.startswith(PASSED_PREFIXES)}


def terminal_size() -> bytes:
    """Return rows and columns of our terminal as the agent takes them."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        size = os.terminal_size((80, 24))
    return size.lines.to_bytes(2, "little") + size.columns.to_bytes(2, "little")


def plan_shares(paths: Sequence[Path]) -> tuple[list[tuple[str, Path]], list[tuple[str, str, Path]]]:
    """Plan one 9p share per directory that must keep what is written.

    A file is reached through a share of its folder, of which only the file is bound over its place.

    Args:
        paths: resolved, existing files and directories.

    Returns:
        The shares (mount tag, directory) and the binds (mount tag, name inside it or "", path).
    """
    tags: dict[Path, str] = {}
    binds: list[tuple[str, str, Path]] = []
    for path in sorted(set(paths)):
        folder, inner = (path, "") if path.is_dir() else (path.parent, path.name)
        tag = tags.setdefault(folder, f"vmm-share{len(tags)}")
        binds.append((tag, inner, path))
    return [(tag, folder) for folder, tag in tags.items()], binds
