"""What a machine is made of: frozen values, made from options or built by hand.

The keys and defaults are those of Cloud Hypervisor's command line. Checks that need no host
(ranges, combinations) are made here; whether files exist is found out when they are opened.
"""

import enum
import re
from collections.abc import Sequence
from pathlib import Path

import attrs
from vm_device import Value

import vmm_reference  # whose names load when they are used
from vmm_reference._arch import CONSOLE
from vmm_reference._config_cpus import CpusConfig
from vmm_reference._config_rings import RING_KEYS, RingConfig
from vmm_reference._errors import ConfigError
from vmm_reference._grammar import Options, parse_size, parse_toggle, parse_word

MIN_MEMORY = 16 << 20
MAX_MEMORY = 1 << 44
MAX_DISKS = 16
MAX_NETS = 8
BUILT_IN_IDS = frozenset({"acpi", "boot-timer", "com1", "i8042", "ioapic", "pvpanic", "rtc", "uart0"})
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

MEMORY_KEYS = {
    "size": "guest RAM: 512M, 2G",
    "shared": "map it shared (default on: RAM is a memfd that other processes can map)",
    "hugepages": "use 2 MiB pages of the host's pool",
    "prefault": "touch every page before the guest starts",
}
PLATFORM_KEYS = {
    "irqchip": "kernel (default), or split: the I/O APIC in this process, no PIC, no PIT",
    "tables": "what tells the guest of its machine: acpi, or fdt (a device tree, the default on AArch64)",
}
RNG_KEYS = {"src": "where entropy comes from", "id": "name in events and errors", **RING_KEYS}


class Irqchip(enum.Enum):
    """Where wired interrupts are collected: in KVM, or in this process (the local APICs stay in KVM)."""

    KERNEL = "kernel"
    SPLIT = "split"


class Tables(enum.Enum):
    """What tells the guest of its machine: ACPI tables or a device tree."""

    ACPI = "acpi"
    FDT = "fdt"


class SerialMode(enum.Enum):
    """Where the first serial port ends."""

    OFF = "off"
    NULL = "null"
    TTY = "tty"
    PTY = "pty"
    FILE = "file"
    SOCKET = "socket"


class BootProtocol(enum.Enum):
    """How a kernel is entered; AUTO takes what the image offers, the fastest first."""

    AUTO = "auto"
    LINUX64 = "linux64"
    PVH = "pvh"


@attrs.frozen(eq=False, repr=False)
class MemoryConfig(Value):
    """Guest RAM: `size` bytes, a multiple of 4 KiB (2 MiB with hugepages) within 16 MiB … 16 TiB.

    Args:
        size: the bytes.
        shared: map it shared; a file that other processes can map too.
        hugepages: take 2 MiB pages of the host's pool; needs `shared`.
        prefault: touch every page before the guest starts.

    Raises:
        ConfigError: the size is out of range, or hugepages are not shared.
    """

    size: int = 512 << 20
    shared: bool = True
    hugepages: bool = False
    prefault: bool = False

    @classmethod
    def parse(cls, text: str) -> "MemoryConfig":
        """Read "size=512M,shared=on"; raises `ConfigError`."""
        options = Options("--memory", text)
        config = cls(
            options.take("size", parse_size, 512 << 20),
            options.take("shared", parse_toggle, default=True),
            options.take("hugepages", parse_toggle, default=False),
            options.take("prefault", parse_toggle, default=False),
        )
        options.finish(MEMORY_KEYS)
        return config

    def __attrs_post_init__(self) -> None:
        if not MIN_MEMORY <= self.size <= MAX_MEMORY:
            raise ConfigError(
                "--memory size", f"{self.size} bytes is not within {MIN_MEMORY >> 20}M … {MAX_MEMORY >> 40}T"
            )
        page = 2 << 20 if self.hugepages else 4096
        if self.size % page:
            near = f"{self.size // page * page} is, and {(self.size // page + 1) * page}"
            raise ConfigError("--memory size", f"{self.size} bytes is not a multiple of {page} ({near})")
        if self.hugepages and not self.shared:
            raise ConfigError(
                "--memory hugepages",
                "on with shared=off; give shared=on: huge pages come from a hugetlb memfd",
            )


@attrs.frozen(eq=False, repr=False)
class SerialConfig(Value):
    """Where the serial console goes: its `mode`, and a `path` for file and socket."""

    mode: SerialMode = SerialMode.TTY
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "SerialConfig":
        """Read "tty", "pty", "null", "off", "file=PATH" or "socket=PATH"; raises `ConfigError`."""
        word, equals, path = text.partition("=")
        modes = {mode.value: mode for mode in SerialMode}
        takes_path = word in {"file", "socket"}
        if word not in modes or takes_path != bool(path) or takes_path != bool(equals):
            raise ConfigError("--serial", f"{text!r} is none of off, null, tty, pty, file=PATH, socket=PATH")
        return cls(modes[word], Path(path) if takes_path else None)


@attrs.frozen(eq=False, repr=False)
class RngConfig(Value):
    """One virtio-rng device fed from `src`; `id` is its name in events, `rings` the features it offers."""

    src: Path = Path("/dev/urandom")
    id: str = "rng0"
    rings: RingConfig = attrs.Factory(RingConfig)

    @classmethod
    def parse(cls, text: str) -> "RngConfig":
        """Read "src=/dev/urandom,id=rng0"; raises `ConfigError`."""
        options = Options("--rng", text)
        source = options.require("src") if options.has("src") else "/dev/urandom"
        config = cls(Path(source), options.take("id", str, "rng0"), RingConfig.take(options))
        options.finish(RNG_KEYS)
        return config


@attrs.frozen(eq=False, repr=False)
class PlatformConfig(Value):
    """What the machine is built on.

    Args:
        irqchip: who has the I/O APIC of an x86-64 machine.
        tables: what tells the guest of its machine; None is ACPI on x86-64, a device tree on AArch64.
    """

    irqchip: Irqchip = Irqchip.KERNEL
    tables: Tables | None = None

    @classmethod
    def parse(cls, text: str) -> "PlatformConfig":
        """Read "irqchip=split,tables=acpi"; raises `ConfigError`."""
        options = Options("--platform", text)
        config = cls(
            options.take("irqchip", parse_word(Irqchip), Irqchip.KERNEL),
            options.take("tables", parse_word(Tables), None),
        )
        options.finish(PLATFORM_KEYS)
        return config


@attrs.frozen(eq=False, repr=False)
class VmConfig(Value):
    """A whole machine.

    Args:
        kernel: ELF vmlinux or bzImage; an Image on AArch64.
        initramfs: loaded as the initial RAM disk.
        cmdline: the kernel's command line, ASCII; by default the console is this host's serial port.
        boot_protocol: how the kernel is entered.
        cpus, memory, disks, nets, serial, rng, event_monitor: the devices and where their streams end.
        platform: what they are built on.
        trace: where a trace of the vCPUs' exits goes.
    """

    kernel: Path
    initramfs: Path | None = None
    cmdline: str = f"console={CONSOLE}"
    boot_protocol: BootProtocol = BootProtocol.AUTO
    cpus: CpusConfig = attrs.Factory(CpusConfig)
    memory: MemoryConfig = MemoryConfig()
    disks: "Sequence[vmm_reference.DiskConfig]" = ()
    nets: "Sequence[vmm_reference.NetConfig]" = ()
    serial: SerialConfig = SerialConfig()
    rng: RngConfig = RngConfig()
    event_monitor: "vmm_reference.EventMonitorConfig | None" = None
    platform: PlatformConfig = PlatformConfig()
    trace: Path | None = None

    def __attrs_post_init__(self) -> None:
        if len(self.disks) > MAX_DISKS:
            raise ConfigError("--disk", f"{len(self.disks)} disks; a virtio-mmio machine takes {MAX_DISKS}")
        if len(self.nets) > MAX_NETS or len(self.disks) + len(self.nets) > MAX_DISKS:
            raise ConfigError(
                "--net",
                f"{len(self.nets)} cards beside {len(self.disks)} disks; a virtio-mmio machine takes "
                f"{MAX_NETS} cards, and {MAX_DISKS} of both",
            )
        for field in ("tap", "fd", "pcap"):
            values = [getattr(net, field) for net in self.nets if getattr(net, field) not in {"", None}]
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ConfigError(f"--net {field}", f"{twice} is given to two cards")
        if not self.cmdline.isascii() or "\0" in self.cmdline:
            raise ConfigError("--cmdline", f"{self.cmdline!r} is not ASCII without NUL")
        ids = (*self.disk_ids(), *self.net_ids(), self.rng.id)
        for name in ids:
            if not _ID.fullmatch(name):
                raise ConfigError("id", f"{name!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
            if name in BUILT_IN_IDS:
                raise ConfigError("id", f"{name!r} is the id of a device that every machine has")
            if ids.count(name) > 1:
                raise ConfigError("id", f"{name!r} names two devices")

    def disk_ids(self) -> tuple[str, ...]:
        """Return the disks' ids: those given, "disk0", "disk1", … for the others."""
        return tuple(disk.id or f"disk{position}" for position, disk in enumerate(self.disks))

    def net_ids(self) -> tuple[str, ...]:
        """Return the network cards' ids: those given, "net0", "net1", … for the others."""
        return tuple(net.id or f"net{position}" for position, net in enumerate(self.nets))
