"""What a configuration names, opened: memory, kernel, images, sources; refusals with the option's name."""

from pathlib import Path
from typing import Final

from linux_loader import KernelImage, LoaderError
from virtio_devices import DiskImage, EntropySource, ImageError, SourceError, VirtioBlk, VirtioRng
from vmm_memory import GuestRegionMmap, HugepageError

from vmm_reference._config import DiskConfig, MemoryConfig, RngConfig
from vmm_reference._errors import ConfigError

_SERIAL_SIZE: Final = 20


def guest_region(base: int, size: int, memory: MemoryConfig) -> GuestRegionMmap:
    if memory.shared:
        try:
            return GuestRegionMmap.memfd(
                base, size, name="guest-ram", hugepages=memory.hugepages, prefault=memory.prefault
            )
        except HugepageError as error:
            need = (
                f"{error.needed} pages of {error.page_size >> 20} MiB are needed, {error.free or 0} are free"
            )
            cure = f"echo {error.needed} > /proc/sys/vm/nr_hugepages (as root), or hugepages=off"
            raise ConfigError("--memory hugepages", f"{need}; {cure}") from None
    return GuestRegionMmap.anonymous(base, size, prefault=memory.prefault)


def open_kernel(path: Path) -> KernelImage:
    try:
        return KernelImage.open(path)
    except LoaderError as error:
        raise ConfigError("--kernel", f"{path}: {error}") from error


def open_disk(name: str, disk: DiskConfig) -> VirtioBlk:
    try:
        image = DiskImage(disk.path, read_only=disk.readonly)
    except ImageError as error:
        raise ConfigError("--disk path", str(error)) from None
    return VirtioBlk(name, image, serial=disk.serial or _short(name), native=disk.engine == "native")


def _short(name: str) -> str | None:
    """A device's id serves as its serial number where it fits (VIRTIO 1.2, 5.2.6.1)."""
    return name if name.isascii() and len(name) <= _SERIAL_SIZE else None


def open_rng(rng: RngConfig) -> VirtioRng:
    try:
        return VirtioRng(rng.id, EntropySource(rng.src))
    except SourceError as error:
        raise ConfigError("--rng src", str(error)) from None
