"""What a configuration names, opened: memory, kernel, images, sources; refusals with the option's name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from linux_loader import (
    CmdlineError,
    CmdlineTooLongError,
    ForeignArchitectureError,
    KernelImage,
    LoaderError,
    PlacementError,
)
from virtio_devices import EntropySource, ImageError, SourceError, VirtioRng
from vm_hypervisor import CoreScheduling, CoreSharing, UnsupportedFeatureError
from vmm_memory import GuestAddress, GuestRegionMmap, MappingError

from vmm_reference._arch import KERNEL, architecture
from vmm_reference._config import MemoryConfig, RngConfig, VmConfig
from vmm_reference._config_cpus import CpusConfig
from vmm_reference._errors import ConfigError

if TYPE_CHECKING:
    from virtio_devices import VirtioBlk

    from vmm_reference._config_disk import DiskConfig

_SERIAL_SIZE: Final = 20
_SHOWN: Final = 60  # of a command line that is too long
_HUGE_PAGE: Final = 2 << 20
_HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def core_sharing(cpus: CpusConfig) -> CoreSharing:
    """Return what each vCPU thread joins before it runs."""
    try:
        return CoreSharing(CoreScheduling(cpus.core_scheduling.value))
    except UnsupportedFeatureError as error:
        raise ConfigError("--cpus core_scheduling", str(error)) from None


def guest_ram(memory: MemoryConfig, ranges: Sequence[tuple[GuestAddress, int]]) -> Iterator[GuestRegionMmap]:
    """Yield the regions of RAM at `ranges`, each made when it is asked for."""
    if memory.hugepages:
        _check_hugepages(memory.size // _HUGE_PAGE)
    for base, size in ranges:
        try:
            yield _region(base, size, memory)
        except MappingError as error:
            option = "--memory prefault" if memory.prefault else "--memory size"
            raise ConfigError(option, f"{error.strerror or error}; ask for less") from None


def _region(base: int, size: int, memory: MemoryConfig) -> GuestRegionMmap:
    if not memory.shared:
        return GuestRegionMmap.anonymous(base, size, prefault=memory.prefault)
    return GuestRegionMmap.memfd(
        base, size, name="guest-ram", hugepages=memory.hugepages, prefault=memory.prefault
    )


def _check_hugepages(needed: int, pool: Path = _HUGE_PAGES) -> None:
    """Refuse what the pool cannot give as a whole: a region below and one above 4 GiB draw from it."""
    try:
        total, free, reserved = (
            int((pool / f"{name}_hugepages").read_text()) for name in ("nr", "free", "resv")
        )
    except OSError:
        raise ConfigError("--memory hugepages", "this kernel has no pages of 2 MiB; hugepages=off") from None
    free -= reserved  # promised to others, who have not touched them yet
    if needed > free:
        cure = f"echo {total - free + needed} > /proc/sys/vm/nr_hugepages (as root), or hugepages=off"
        raise ConfigError(
            "--memory hugepages", f"{needed} pages of 2 MiB are needed, {free} are free; {cure}"
        )


def open_kernel(path: Path) -> KernelImage:
    """Open a kernel image; a refusal is told in the option's words."""
    try:
        return KernelImage.open(path)
    except ForeignArchitectureError as error:
        raise _foreign(path, error) from error
    except (LoaderError, OSError) as error:
        raise ConfigError("--kernel", f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _foreign(path: Path, error: ForeignArchitectureError) -> ConfigError:
    # The loader loads kernels of every architecture; the cure is one of this host's.
    return ConfigError("--kernel", f"{path}: the kernel is built for {error.found}; give {KERNEL}")


def check_kernel(config: VmConfig) -> None:
    """Refuse a kernel, initramfs or command line that loading would refuse, in the options' words."""
    with open_kernel(config.kernel) as image:
        try:
            architecture().check_kernel(config, image)
        except ForeignArchitectureError as error:
            raise _foreign(config.kernel, error) from error
        except (LoaderError, OSError) as error:
            raise _kernel_refusal(config, error) from error


def _kernel_refusal(config: VmConfig, error: LoaderError | OSError) -> ConfigError:
    memory = f"--memory size={config.memory.size >> 20}M"
    match error:
        case CmdlineTooLongError():
            longest = error.capacity - 1
            problem = f"{error.length - 1} bytes, this kernel reads at most {longest}; shorten it"
            return ConfigError("--cmdline", f"{problem} (it begins {config.cmdline[:_SHOWN]!r})")
        case CmdlineError():
            return ConfigError("--cmdline", f"{error.reason}: {error.text[:_SHOWN]!r}")
        case PlacementError(what="initrd"):
            return ConfigError("--initramfs", f"{config.initramfs}: {error.reason} ({memory})")
        case PlacementError():
            problem = f"{config.kernel}: {error.what} of {error.size:#x} bytes does not fit: {error.reason}"
            return ConfigError("--kernel", f"{problem} ({memory}; give more)")
        case OSError():
            return ConfigError("--initramfs", f"{config.initramfs}: {error.strerror}")
    initrd = getattr(error, "what", "") == "initrd"
    option, path = ("--initramfs", config.initramfs) if initrd else ("--kernel", config.kernel)
    return ConfigError(option, f"{path}: {error}")


def open_disk(name: str, disk: "DiskConfig") -> "VirtioBlk":
    """Open a disk's image and make the device; a refusal is told in the option's words."""
    # A machine without a disk starts without the code for it.
    from virtio_devices import DiskImage, VirtioBlk  # noqa: PLC0415

    try:
        image = DiskImage(disk.path, read_only=disk.readonly)
    except ImageError as error:
        raise ConfigError("--disk path", str(error)) from None
    return VirtioBlk(
        name,
        image,
        serial=disk.serial or _short(name),
        queue_size=disk.queue_size,
        native=disk.engine == "native",
    )


def _short(name: str) -> str | None:
    """A device's id serves as its serial number where it fits (VIRTIO 1.2, 5.2.6.1)."""
    return name if name.isascii() and len(name) <= _SERIAL_SIZE else None


def open_rng(rng: RngConfig) -> VirtioRng:
    """Open an entropy source and make the device; a refusal is told in the option's words."""
    try:
        return VirtioRng(rng.id, EntropySource(rng.src))
    except SourceError as error:
        raise ConfigError("--rng src", str(error)) from None
