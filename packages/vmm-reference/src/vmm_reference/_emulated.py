"""`vmm run` inside an emulated host, with its streams relayed.

The same command runs there with `--serial tty` on pipes; the serial backend that the user asked for
lives out here, at the other end of them. Events are written to a file that the host shares, and
copied to where the user wants them as they come. Files that the guest may write are shared at their
own paths, so what it wrote and synced stays.
"""

import fcntl
import os
import selectors
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import vmm_testhost
from virtio_devices import DiskImage, ImageError
from vm_device import EventManager, start_masked
from vm_hypervisor.cpuid import BUILT_IN

from vmm_reference._config import PlatformConfig, SerialConfig, SerialMode, VmConfig
from vmm_reference._config_cpus import CpusConfig
from vmm_reference._config_events import EventMonitorConfig
from vmm_reference._config_net import DEFAULT_ADDRESS, NetConfig
from vmm_reference._errors import ConfigError, HostError
from vmm_reference._events import EventMonitor
from vmm_reference._files import new_outputs_removed, written_inside
from vmm_reference._grammar import quote
from vmm_reference._serial import SerialBackend, open_backend
from vmm_reference._serial_input import ConsoleInput
from vmm_reference._signals import EarlySignals, with_early_signals

_HOST_CPUS = 1
_HOST_OVERHEAD_MIB = 1024  # the host's own kernel, Python and page cache beside guest RAM
_OWN_INSIDE = ("/proc", "/sys", "/dev")  # the emulated host has file systems of its own there
_POLL_SECONDS = 0.05
_GIVE_UP_AFTER = 2.0  # seconds for a console's reader to take the last output


class _InputPipe(ConsoleInput):
    """What is typed outside, on its way to the VMM inside; both run on the event loop."""

    def __init__(self, fd: int, events: EventManager, on_room: Callable[[], None]) -> None:
        self._fd, self._events, self._on_room = fd, events, on_room
        os.set_blocking(fd, False)

    def enqueue(self, data: bytes) -> int:
        """Write what the pipe takes now; return how many bytes that was."""
        try:
            taken = os.write(self._fd, data)
        except BlockingIOError:
            taken = 0
        except BrokenPipeError:
            return len(data)  # nobody will ever read it
        if taken < len(data):
            self._events.add(self._fd, self._writable, selectors.EVENT_WRITE)
        return taken

    def _writable(self, _mask: int) -> None:
        self._events.remove(self._fd)
        self._on_room()


def _check_crossing(config: VmConfig) -> None:
    """Refuse what cannot cross into another machine."""
    if config.event_monitor is not None and config.event_monitor.fd is not None:
        raise ConfigError(
            "--event-monitor fd",
            f"descriptor {config.event_monitor.fd} does not exist in the emulated host; use path=",
        )
    _check_place("--kernel", config.kernel)
    if config.initramfs is not None:
        _check_place("--initramfs", config.initramfs)
    if config.cpus.template_file is not None:
        _check_place("--cpus template", config.cpus.template_file)
    for disk in config.disks:
        _check_place("--disk path", disk.path)
    for vcpu, cpus in config.cpus.affinity.items():
        if not cpus & set(range(_HOST_CPUS)):
            raise ConfigError(
                "--cpus affinity",
                f"vCPU {vcpu} shall run on host CPUs {sorted(cpus)}; the emulated host has CPU 0 only, "
                "leave affinity out",
            )
    for net in config.nets:
        _check_net(net)
    for option, path in written_inside(config):
        _check_place(option, path)
        if path.is_fifo():
            raise ConfigError(option, f"{path}: a FIFO does not reach into the emulated host; give a file")
    # The host of the guest is a process of this machine: what it may not have, QEMU cannot give it.
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    need = _host_memory(config)
    if need > have:
        raise ConfigError(
            "--memory size",
            f"the guest's {config.memory.size >> 20}M need an emulated host of {need} MiB, this machine has "
            f"{have} MiB; ask for less",
        )


def _check_net(net: NetConfig) -> None:
    if net.tap or net.fd is not None:
        what = f"tap {net.tap}" if net.tap else f"descriptor {net.fd}"
        raise ConfigError(
            "--net tap" if net.tap else "--net fd",
            f"{what} of this machine does not exist in the emulated host; leave tap= and fd= out (the "
            f"guest reaches its emulated host at {net.address or DEFAULT_ADDRESS}), or take --host kvm",
        )


def _check_place(option: str, path: Path) -> None:
    """Refuse a file that is elsewhere, or something else, in the emulated host."""
    if path.is_block_device():
        raise ConfigError(
            option,
            f"{path}: a block device of this machine is not in the emulated host; copy it into a file "
            f"(dd if={path} of=FILE conv=sparse)",
        )
    for own in _OWN_INSIDE:
        if path.resolve().is_relative_to(own):
            raise ConfigError(option, f"{path}: the emulated host has its own {own}; give a file elsewhere")


def _host_memory(config: VmConfig) -> int:
    """RAM of the emulated host, in MiB."""
    return _HOST_OVERHEAD_MIB + 2048 + (config.memory.size >> 20)


def _lock_disks(config: VmConfig, stack: ExitStack) -> None:
    """Hold the images' locks out here: those that the VMM inside takes do not leave the emulated host."""
    for disk in config.disks:
        try:
            stack.enter_context(DiskImage(disk.path, read_only=disk.readonly))
        except ImageError as error:
            raise ConfigError("--disk path", str(error)) from None


def _make_outputs(config: VmConfig) -> None:
    """Make the files that the VMM inside writes: only what exists can be shared with the emulated host."""
    for option, path in written_inside(config):
        try:
            path.touch(0o600)
        except OSError as error:
            raise ConfigError(option, f"{path}: {error.strerror}") from None


def arguments(config: VmConfig, events: Path | None, verbose: int) -> list[str]:
    """Return the command line of the inner `vmm run` for the same machine."""
    memory = config.memory
    words = [
        *("--kernel", str(config.kernel.absolute())),
        # In one word: a command line may begin with a dash.
        f"--cmdline={config.cmdline}",
        *("--boot-protocol", config.boot_protocol.value),
        *("--cpus", _cpus_words(config.cpus)),
        "--memory",
        f"size={memory.size},shared={_toggle(memory.shared)},hugepages={_toggle(memory.hugepages)}"
        f",prefault={_toggle(memory.prefault)}",
        *("--platform", _platform_words(config.platform)),
        *("--rng", f"src={quote(str(config.rng.src))},id={quote(config.rng.id)}{config.rng.rings.words()}"),
        *("--serial", "off" if config.serial.mode is SerialMode.OFF else "tty"),
    ]
    if config.initramfs is not None:
        words += ["--initramfs", str(config.initramfs.absolute())]
    for name, disk in zip(config.disk_ids(), config.disks, strict=True):
        path = quote(str(disk.path.absolute()))
        serial = f",serial={quote(disk.serial)}" if disk.serial else ""
        words += [
            "--disk",
            f"path={path},readonly={_toggle(disk.readonly)},id={quote(name)},engine={disk.engine}{serial}"
            + f",queue_size={disk.queue_size}"
            + disk.rings.words(),
        ]
    for name, net in zip(config.net_ids(), config.nets, strict=True):
        words += ["--net", _net_words(name, net)]
    if config.trace is not None:
        words += ["--trace", str(config.trace.absolute())]
    if events is not None:
        words += ["--event-monitor", f"path={quote(str(events))}"]
    return [*words, *["-v"] * verbose]


def _cpus_words(cpus: CpusConfig) -> str:
    affinity = ",".join(f"{vcpu}@[{_numbers(allowed)}]" for vcpu, allowed in cpus.affinity.items())
    template = cpus.template if cpus.template in BUILT_IN else str(Path(cpus.template).absolute())
    words = f"boot={cpus.boot},template={quote(template)},core_scheduling={cpus.core_scheduling.value}"
    words += "" if cpus.topology is None else f",topology={cpus.topology}"
    return words + (f",affinity=[{affinity}]" if affinity else "")


def _platform_words(platform: PlatformConfig) -> str:
    tables = "" if platform.tables is None else f",tables={platform.tables.value}"
    return f"irqchip={platform.irqchip.value}{tables}"


def _net_words(name: str, net: NetConfig) -> str:
    pairs = {
        "tap": quote(net.tap) if net.tap else None,
        "fd": net.fd,
        "mac": None if net.mac is None else net.mac.hex(":"),
        "ip": None if net.address is None else net.address.ip,
        "mask": None if net.address is None else net.address.netmask,
        "mtu": net.mtu,
        "id": quote(name),
        "pcap": None if net.pcap is None else quote(str(net.pcap.absolute())),
        "engine": net.engine,
        "queue_size": net.queue_size,
        "offload_csum": _toggle(net.offload_csum),
        "offload_tso": _toggle(net.offload_tso),
    }
    words = ",".join(f"{key}={value}" for key, value in pairs.items() if value is not None)
    return words + net.rings.words()


def _toggle(value: bool) -> str:
    return "on" if value else "off"


def _numbers(cpus: frozenset[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))


def _start(name: str, target: Callable[[], None]) -> threading.Thread:
    """Run `target` in a thread that no signal reaches: the main one, which handles it, would sleep on."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    start_masked(thread)
    return thread


class _EventRelay:
    """Copy the inner event file to its destination, line by line, while it grows."""

    def __init__(self, source: Path, config: EventMonitorConfig) -> None:
        self._target = EventMonitor.open(config)
        self._source = source.open("rb")
        self._part = b""
        self._done = threading.Event()
        self._thread = _start("event-relay", self._run)

    def _run(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        for line in (self._part + self._source.read()).splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._target.relay(line)
                self._part = b""
            else:
                self._part = line

    def close(self) -> None:
        """Copy what is there, and end."""
        self._done.set()
        self._thread.join()
        self._source.close()
        self._target.close()


class _SerialRelay:
    """The user's serial backend, joined by two pipes to the VMM inside."""

    def __init__(self, config: SerialConfig) -> None:
        self._backend: SerialBackend | None = open_backend(config, _interrupt)
        self.inner_in, self._to_inner = os.pipe2(os.O_CLOEXEC)
        self._from_inner, self.inner_out = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # a user's pipes have a limit together
            fcntl.fcntl(self._from_inner, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._events = EventManager("serial-relay")
        self._thread = _start("serial-out", self._pump)

    def start(self) -> None:
        """Take the console over; whatever comes of it, `close` gives it back."""
        if self._backend is not None:
            port = _InputPipe(self._to_inner, self._events, self._backend.resume_input)
            self._backend.attach(self._events, port)
            self._events.start()

    def _pump(self) -> None:
        while data := os.read(self._from_inner, 1 << 16):
            if self._backend is not None:
                self._backend.write(data)

    def close(self) -> None:
        """Pass on what the VMM inside still says, and give the console back."""
        if self._backend is not None:
            self._backend.detach()
        self._events.close()
        os.close(self.inner_out)
        self._thread.join(_GIVE_UP_AFTER)
        if self._backend is not None:
            self._backend.hang_up()
            self._thread.join()
            self._backend.close()
        for fd in (self.inner_in, self._to_inner, self._from_inner):
            os.close(fd)


def _interrupt() -> None:
    # The relay of signals hands it to the VMM inside, which ends as it would on a terminal.
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def _streams(config: VmConfig) -> Iterator[tuple[_SerialRelay, Path | None]]:
    scratch = Path(tempfile.mkdtemp(prefix="vmm-emulated-"))
    try:
        relay = None
        events = None
        if config.event_monitor is not None:
            events = scratch / "events.json"
            events.touch()
            relay = _EventRelay(events, config.event_monitor)
        try:
            serial = _SerialRelay(config.serial)
            try:
                serial.start()
                yield serial, events
            finally:
                serial.close()
        finally:
            if relay is not None:
                relay.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run(config: VmConfig, *, verbose: int = 0) -> int:
    """Boot `config` in an emulated host; return the exit status of the VMM in there.

    Args:
        config: the machine.
        verbose: how many -v the VMM inside gets.

    Raises:
        ConfigError: a file is missing, or something named cannot cross into the emulated host.
        HostError: the emulated host cannot be had, or it crashed.
    """
    _check_crossing(config)
    if threading.current_thread() is not threading.main_thread():
        return _run(config, verbose, None)
    return with_early_signals(lambda early: _run(config, verbose, early))


def _run(config: VmConfig, verbose: int, early: EarlySignals | None) -> int:
    command = [sys.executable, "-m", "vmm_reference", "run", "--host", "kvm"]
    with new_outputs_removed(config, only_empty=True), ExitStack() as stack:
        _lock_disks(config, stack)
        _make_outputs(config)
        serial, events = stack.enter_context(_streams(config))
        try:
            # Until the host is there and hands signals on, its parts may have to be fetched.
            with nullcontext() if early is None else early.interrupting():
                result = vmm_testhost.run(
                    [*command, *arguments(config, events, verbose)],
                    writable=_writable(config, events),
                    stdin=serial.inner_in,
                    stdout=serial.inner_out,
                    memory=_host_memory(config),
                    cpus=_HOST_CPUS,
                    forward_signals=early is not None,
                )
        except (ValueError, vmm_testhost.EmulatedHostError) as error:
            # ValueError: the folder for temporary files cannot be shared.
            raise HostError(f"emulated host: {error}") from None
    return result.returncode


def _writable(config: VmConfig, events: Path | None) -> Sequence[Path]:
    disks = [disk.path for disk in config.disks if not disk.readonly]
    outputs = [path for _, path in written_inside(config)]
    return [*disks, *outputs, *([events] if events is not None else [])]
