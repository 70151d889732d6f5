"""What options ask of this machine, files and memory, looked at before anything is built or started."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import virtio_devices  # whose names load when they are used

from vmm_reference._arch import KERNEL, architecture
from vmm_reference._config import SerialMode, VmConfig
from vmm_reference._errors import ConfigError, VmmError
from vmm_reference._open import check_kernel

_SOCKET_PATH_MAX: Final = 107  # sun_path of unix(7) is 108 bytes, one of them the final NUL
_Key = tuple[int, int] | str
_ABSENT: Final = {
    "--kernel": f"give the path of {KERNEL}",
    "--initramfs": "give the path of an initramfs, or leave the option out",
    "--disk path": "give the path of a raw image; `truncate -s 8G FILE` makes an empty one",
    "--rng src": "give a source of random bytes, such as /dev/urandom",
}


def open_for_output(path: Path) -> int:
    """Return a descriptor that writes to `path`, made or truncated; the caller closes it.

    A FIFO is opened for both ways: for writing alone, opening would wait for a reader.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR if path.is_fifo() else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.open(path, flags | os.O_CLOEXEC, 0o644)


@contextmanager
def new_outputs_removed(config: VmConfig, *, only_empty: bool) -> Iterator[None]:
    """Take output files that were made inside away again when it ends in a refusal.

    Args:
        config: names the files.
        only_empty: keep those that something was written to.
    """
    new = [path for _, path in _outputs(config) if not path.exists()]
    try:
        yield
    except VmmError:
        for path in new:
            if path.is_file() and not (only_empty and path.stat().st_size):
                path.unlink()
        raise


def check_memory(config: VmConfig, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Refuse more guest RAM than this machine has RAM and swap: it would end at the OOM killer.

    RAM that is to be touched at once has to be free now.

    Raises:
        ConfigError: names both sizes.
    """
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    have = sum(int(fields[name].split()[0]) for name in ("MemTotal", "SwapTotal")) >> 10
    if config.memory.size >> 20 > have:
        raise ConfigError(
            "--memory size",
            f"{config.memory.size >> 20}M is more than the {have}M of RAM and swap here; ask for less",
        )
    if not config.memory.prefault or config.memory.hugepages:
        return
    free = sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree")) >> 10
    if config.memory.size >> 20 > free:
        raise ConfigError(
            "--memory prefault",
            f"{config.memory.size >> 20}M is more than the {free}M that are free here; ask for less, or "
            "prefault=off",
        )


def check_inputs(config: VmConfig) -> None:
    """Refuse what cannot work with these files, on whatever host; nothing is written or left open.

    That is: a kernel, initramfs, disk or entropy source that is not there, not of the right kind, in use
    or not what it should be; what does not fit into the guest; an output that cannot be made or would
    destroy an input.

    Raises:
        ConfigError: names the option, the path, and why.
    """
    _check("--kernel", config.kernel, os.R_OK)
    if config.initramfs is not None:
        _check("--initramfs", config.initramfs, os.R_OK)
    for disk in config.disks:
        _check("--disk path", disk.path, os.R_OK if disk.readonly else os.R_OK | os.W_OK, device=True)
    _check_source(config.rng.src)
    _check_outputs(config)
    _check_disks(config)
    architecture().check_options(config)
    check_kernel(config)


def _check(option: str, path: Path, access: int, *, device: bool = False) -> None:
    status = _stat(option, path)
    mode = status.st_mode
    if not (stat.S_ISREG(mode) or (device and stat.S_ISBLK(mode))):
        wanted = "a file or block device" if device else "a file"
        raise ConfigError(option, f"{path}: is {_kind(mode)}, not {wanted}; {_ABSENT[option]}")
    _check_access(option, path, access)
    if not status.st_size and not device:
        raise ConfigError(option, f"{path}: is empty (0 bytes); {_ABSENT[option]}")


def _check_source(path: Path) -> None:
    if stat.S_ISDIR(mode := _stat("--rng src", path).st_mode):
        raise ConfigError("--rng src", f"{path}: is {_kind(mode)}; {_ABSENT['--rng src']}")
    _check_access("--rng src", path, os.R_OK)


def _stat(option: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise ConfigError(option, f"{path}: {_reason(error)}; {_ABSENT[option]}") from None


def _check_access(option: str, path: Path, access: int) -> None:
    if os.access(path, access):
        return
    if access & os.W_OK and os.access(path, os.R_OK):
        raise ConfigError(
            option, f"{path}: cannot be written ({_owner(path)}); give readonly=on or permission to write"
        )
    raise ConfigError(option, f"{path}: Permission denied ({_owner(path)}); give yourself permission to read")


def _owner(path: Path) -> str:
    """Say who owns a file and what its mode allows: what a cure depends on."""
    status = path.stat()
    try:
        user, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        user, group = str(status.st_uid), str(status.st_gid)
    return f"{user}:{group}, mode {stat.S_IMODE(status.st_mode):04o}"


def _check_disks(config: VmConfig) -> None:
    """Open the images as a device would, all at once: sizes, locks, one image given twice."""
    with ExitStack() as stack:
        seen: dict[_Key, bool] = {}
        for disk in config.disks:
            key = _key(disk.path)
            if key in seen and not (disk.readonly and seen[key]):
                raise ConfigError(
                    "--disk path",
                    f"{disk.path}: given twice; only disks that are all readonly=on share an image",
                )
            seen[key] = disk.readonly
            try:
                stack.enter_context(virtio_devices.DiskImage(disk.path, read_only=disk.readonly))
            except virtio_devices.ImageError as error:
                raise ConfigError("--disk path", str(error)) from None


def _outputs(config: VmConfig) -> Sequence[tuple[str, Path]]:
    """The files that are written from the first byte on, with their options."""
    found = []
    if config.serial.path is not None and config.serial.mode is SerialMode.FILE:
        found.append(("--serial file", config.serial.path))
    if config.event_monitor is not None and config.event_monitor.path is not None:
        found.append(("--event-monitor path", config.event_monitor.path))
    return found + written_inside(config)


def written_inside(config: VmConfig) -> list[tuple[str, Path]]:
    """The outputs that are written next to the guest, in an emulated host too, with their options."""
    found = [("--net pcap", net.pcap) for net in config.nets if net.pcap is not None]
    return found + ([] if config.trace is None else [("--trace", config.trace)])


def _check_outputs(config: VmConfig) -> None:
    inputs = [("--kernel", config.kernel), *(("--disk path", disk.path) for disk in config.disks)]
    if config.initramfs is not None:
        inputs.append(("--initramfs", config.initramfs))
    if config.cpus.template_file is not None:
        inputs.append(("--cpus template", config.cpus.template_file))
    taken = {_key(path): option for option, path in inputs}
    for option, path in _outputs(config):
        _check_new(option, path)
        if option == "--trace" and path.is_fifo():  # the machine's end would wait for its reader
            raise ConfigError(option, f"{path}: is a FIFO, not a file; give another path")
        key = _key(path)
        if key in taken:
            raise ConfigError(option, f"{path}: is what {taken[key]} names too; give another path")
        if not path.is_char_device():
            taken[key] = option
    if config.serial.path is not None and config.serial.mode is SerialMode.SOCKET:
        _check_socket(config.serial.path)


def _check_new(option: str, path: Path) -> None:
    """Refuse a path that no output can be written to."""
    try:
        if path.is_dir():
            raise ConfigError(option, f"{path}: is a folder; give the path of a file in it")
        exists = path.exists()
        if path.is_socket():
            raise ConfigError(option, f"{path}: is a socket, not a file; give another path")
        # A name may dangle: what is made is what it points to.
        folder = (path if exists else path.resolve()).parent
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(option, f"{path}: {_reason(error)}; give another path") from None
    if exists:
        if not os.access(path, os.W_OK):
            raise ConfigError(option, f"{path}: cannot be written ({_owner(path)}); give another path")
    elif not folder.is_dir():
        raise ConfigError(option, f"{path}: there is no folder {folder}; make it first (mkdir -p)")
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(option, f"{path}: the folder cannot be written ({_owner(folder)}); choose another")


def _check_socket(path: Path) -> None:
    option = "--serial socket"
    length = len(os.fsencode(path))
    if length > _SOCKET_PATH_MAX:
        raise ConfigError(
            option,
            f"{path}: {length} bytes, a socket's path has at most {_SOCKET_PATH_MAX}; choose a shorter one",
        )
    if socket_left_over(path):
        return
    if os.path.lexists(path):
        raise ConfigError(option, f"{path}: exists already; remove it or choose a path that is free")
    _check_new(option, path)


def socket_left_over(path: Path) -> bool:
    """Tell whether it is a socket that nobody listens at any more: its process was killed."""
    try:
        if not path.is_socket():
            return False
        import socket  # noqa: PLC0415 - only here, and 2 ms of every start

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            return probe.connect_ex(os.fsencode(path)) == errno.ECONNREFUSED
    except (OSError, ValueError):
        return False


def _key(path: Path) -> _Key:
    """What tells two names of one file."""
    try:
        status = path.stat()
    except OSError:
        return str(path.resolve())
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
