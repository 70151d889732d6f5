"""What options ask of this machine, files and memory, looked at before anything is built or started."""

import os
import stat
from pathlib import Path

from vmm_reference._config import VmConfig
from vmm_reference._errors import ConfigError


def open_for_output(path: Path) -> int:
    """Return a descriptor that writes to `path`, made or truncated; the caller closes it.

    A FIFO is opened for both ways: for writing alone, opening would wait for a reader.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR if path.is_fifo() else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.open(path, flags | os.O_CLOEXEC, 0o644)


def check_memory(config: VmConfig, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Refuse more guest RAM than this machine has RAM and swap: it would end at the OOM killer.

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


def check_inputs(config: VmConfig) -> None:
    """Refuse a kernel, initramfs, disk or entropy source that is not there or not of the right kind.

    What is inside them is found out by those who read them.

    Raises:
        ConfigError: names the option, the path, and why.
    """
    _check("--kernel", config.kernel, os.R_OK)
    if config.initramfs is not None:
        _check("--initramfs", config.initramfs, os.R_OK)
    for disk in config.disks:
        _check("--disk path", disk.path, os.R_OK if disk.readonly else os.R_OK | os.W_OK, device=True)
    try:
        config.rng.src.stat()
    except (OSError, ValueError) as error:
        raise ConfigError("--rng src", f"{config.rng.src}: {_reason(error)}") from None


def _check(option: str, path: Path, access: int, *, device: bool = False) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ConfigError(option, f"{path}: {_reason(error)}") from None
    if not (stat.S_ISREG(mode) or (device and stat.S_ISBLK(mode))):
        wanted = "a file or block device" if device else "a file"
        raise ConfigError(option, f"{path}: is {_kind(mode)}, not {wanted}")
    if not os.access(path, access):
        cure = "; give readonly=on or permission to write" if access & os.W_OK else ""
        raise ConfigError(option, f"{path}: Permission denied{cure}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
