"""Run one command in an emulated host."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._apt import ensure_tools
from ._arch import ARCHITECTURES, DEFAULT, Architecture, Host
from ._initramfs import base_archive, run_archive, shell_setup
from ._plan import foreign_environment, inner_environment, plan_shares, terminal_size
from ._qemu import Machine
from ._session import Result, Streams, run_machine

MIN_MEMORY = 512
MAX_CPUS = 64


def prepare(arch: str = DEFAULT.name) -> None:
    """Fetch and build all that a launch needs, so that later ones work offline.

    Args:
        arch: architecture of the host, ``"x86_64"`` or ``"aarch64"``.

    Raises:
        ValueError: There is no host of that architecture.
        SetupError: Something is missing and cannot be fetched; ``cure`` is the command to run.
    """
    _prepared(_architecture(arch))


def _architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ValueError(f"arch {name!r}: an emulated host is one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _prepared(arch: Architecture) -> tuple[Host, Path]:
    """Return what a host is made of, and the archive that its runs share."""
    ensure_tools(arch.tools)
    host = arch.find_host()
    return host, base_archive(host.kernel, host.busybox, arch.modules)


def _check(command: Sequence[str], memory: int, cpus: int) -> None:
    if not command:
        raise ValueError(f"argv is {command}: name a command to run in the emulated host")
    if memory < MIN_MEMORY:
        raise ValueError(f"memory {memory} MiB: the host needs at least {MIN_MEMORY} MiB")
    if not 1 <= cpus <= MAX_CPUS:
        raise ValueError(f"cpus {cpus} is not in 1..{MAX_CPUS}")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    arch: str = DEFAULT.name,
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
    cpus: int = 1,
    kernel_args: str = "",
    extra_qemu_args: Sequence[str] = (),
    forward_signals: bool = False,
) -> Result:
    """Run a command in a fresh emulated host that has a complete KVM, and wait for it.

    The host sees this machine's files at the same paths, read-only under a layer in its memory: what the
    command writes is lost, except below ``results`` and ``writable``. The command runs as root with
    VMM_TESTHOST=1 in its environment, an empty TMPDIR in memory, a loopback interface and no network.

    Args:
        argv: the command and its arguments; searched in PATH.
        arch: architecture of the host. In ``"aarch64"`` programs of this machine do not run: Debian's arm64
            ones lie over them (CPython 3.11 as ``python3``), and PATH and PYTHON* of ours do not pass.
        cwd: working directory, ours by default.
        env: variables added to the selected ones of ours (PATH, HOME, LANG, PYTHON*, PYTEST_*, VMM_*, ...).
        results: a directory, created if missing, that keeps what is written; in $VMM_TESTHOST_RESULTS.
        writable: existing directories and files that keep what is written, at the same paths.
        stdin: a file descriptor to relay, bytes to feed, or None for an empty one.
        stdout: the file descriptor that gets the command's stdout.
        stderr: the file descriptor that gets the command's stderr; with ``tty`` both go to ``stdout``.
        capture: keep both streams in the result instead.
        tty: give the command a terminal of its own and put ours (descriptor 0) into raw mode meanwhile.
        timeout: seconds for the whole run, boot included; None for no limit.
        memory: RAM of the host in MiB, at least 512.
        cpus: virtual CPUs of the host, 1 to 64. With more than one, QEMU emulates them in threads, and a
            kernel that patches its code while another CPU runs it has been seen to panic under load: a host
            that ends before the command starts is started once more, with a warning in the log.
        kernel_args: added to the host's kernel command line, e.g. ``"intel_iommu=on"``.
        extra_qemu_args: appended to QEMU's command line.
        forward_signals: take SIGINT, SIGTERM, SIGHUP and SIGWINCH of this process while the command runs
            (main thread only); each reaches the command; all but SIGINT also end the host soon after.

    Returns:
        The exit status and, if captured, the output.

    Raises:
        ValueError: Empty command, no such architecture, memory or cpus out of range, or a path that cannot be
            made writable.
        FileNotFoundError: ``cwd`` or a writable path does not exist.
        SetupError: QEMU or the kernel cannot be had; ``cure`` is the command to run.
        HostCrashError: The host ended without a status; the kernel log's end is attached.
        HostTimeoutError: The command was stopped after ``timeout``.
        KeyboardInterrupt: Without ``forward_signals``: the command got SIGINT and the host is gone.
    """
    command = [os.fspath(arg) for arg in argv]
    _check(command, memory, cpus)
    architecture = _architecture(arch)
    directory = Path(cwd or Path.cwd()).resolve(strict=True)
    kept = [Path(path).resolve(strict=True) for path in writable]
    own = inner_environment(os.environ)
    passed = own if architecture is DEFAULT else foreign_environment(own)
    variables = passed | dict(env or {}) | {"VMM_TESTHOST": "1"}
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
    host, base = _prepared(architecture)
    setup = shell_setup(host.python, host.kernel.modules, binds, userland=host.userland is not None)
    with tempfile.TemporaryDirectory(prefix="vmm-testhost-") as folder:
        scratch = Path(folder)
        initramfs = scratch / "initramfs"
        initramfs.write_bytes(base.read_bytes() + run_archive(setup, description))
        machine = Machine(
            kernel=host.image,
            initramfs=initramfs,
            console=scratch / "console",
            memory=memory,
            cpus=cpus,
            shares=shares,
            kernel_args=kernel_args,
            extra=tuple(extra_qemu_args),
            arch=architecture,
            userland=host.userland,
        )
        streams = Streams(stdin, stdout, stderr, tty, {b"o": [], b"e": []} if capture else None)
        return run_machine(machine, scratch, streams, timeout=timeout, forward_signals=forward_signals)
