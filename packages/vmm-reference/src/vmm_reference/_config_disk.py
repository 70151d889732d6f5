"""What `--disk` says: one disk, in Cloud Hypervisor's keys."""

from pathlib import Path

import attrs

from vmm_reference._config_keys import DISK_KEYS
from vmm_reference._config_rings import RingConfig
from vmm_reference._errors import ConfigError
from vmm_reference._grammar import Options, parse_count, parse_toggle


@attrs.frozen
class DiskConfig:
    """One virtio-blk disk on a raw image or block device.

    Args:
        path: of the image or device.
        readonly: refuse the guest's writes.
        id: its name in events and errors; "" gives it one by its position.
        serial: what the guest reads, at most 20 ASCII bytes.
        engine: "native" (C, batched) or "python".
        queue_size: entries of the request queue, a power of two within 4 … 32768.
        rings: ring features it offers.

    Raises:
        ConfigError: one of them is out of range.
    """

    path: Path
    readonly: bool = False
    id: str = ""
    serial: str = ""
    engine: str = "native"
    queue_size: int = 256
    rings: RingConfig = attrs.Factory(RingConfig)

    @classmethod
    def parse(cls, text: str) -> "DiskConfig":
        """Read "path=disk.raw,readonly=on,id=root"; raises `ConfigError`."""
        options = Options("--disk", text)
        config = cls(
            Path(options.require("path")),
            options.take("readonly", parse_toggle, default=False),
            options.take("id", str, ""),
            options.take("serial", str, ""),
            options.take("engine", str, "native"),
            options.take("queue_size", parse_count, 256),
            RingConfig.take(options),
        )
        options.finish(DISK_KEYS)
        return config

    def __attrs_post_init__(self) -> None:
        if self.engine not in {"native", "python"}:
            raise ConfigError("--disk engine", f"{self.engine!r} is neither native nor python")
        if not 4 <= self.queue_size <= 32768 or self.queue_size & (self.queue_size - 1):
            raise ConfigError("--disk queue_size", f"{self.queue_size} is not a power of two from 4 to 32768")
        if len(self.serial) > 20 or not self.serial.isascii():
            raise ConfigError("--disk serial", f"{self.serial!r} is not at most 20 ASCII bytes")
