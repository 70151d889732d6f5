"""Each option, good and bad, with the message a user reads."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_devices import RingOptions
from vm_hypervisor.cpuid import Topology
from vmm_reference import (
    ConfigError,
    CpusConfig,
    DiskConfig,
    EventMonitorConfig,
    Irqchip,
    MemoryConfig,
    PlatformConfig,
    RingConfig,
    RngConfig,
    SerialConfig,
    SerialMode,
    Tables,
    VmConfig,
)
from vmm_reference._arch import architecture
from vmm_reference._config_cpus import CoreScheduling
from vmm_reference._config_rings import RING_KEYS

M, G = 1 << 20, 1 << 30

GOOD = [
    (CpusConfig, "boot=2", CpusConfig(2, 2)),
    (PlatformConfig, "irqchip=split", PlatformConfig(Irqchip.SPLIT)),
    (PlatformConfig, "irqchip=kernel", PlatformConfig()),
    (PlatformConfig, "tables=acpi", PlatformConfig(tables=Tables.ACPI)),
    (PlatformConfig, "irqchip=split,tables=fdt", PlatformConfig(Irqchip.SPLIT, Tables.FDT)),
    (CpusConfig, "boot=2,max=2,affinity=[0@[1],1@[2-3]]", CpusConfig(2, 2, {0: {1}, 1: {2, 3}})),
    (CpusConfig, "boot=254", CpusConfig(254, 254)),
    (CpusConfig, "boot=8,topology=2:2:1:2", CpusConfig(8, 8, topology=Topology(2, 2, 1, 2))),
    (
        CpusConfig,
        "core_scheduling=vcpu",
        CpusConfig(core_scheduling=CoreScheduling.VCPU),
    ),
    (CpusConfig, "topology=1:3:1:1,template=t2", CpusConfig(3, 3, {}, Topology(cores=3), "t2")),
    (MemoryConfig, "size=16M", MemoryConfig(16 * M)),
    (MemoryConfig, "size=2G,shared=off", MemoryConfig(2 * G, shared=False)),
    (MemoryConfig, "hugepages=on,prefault=true", MemoryConfig(512 * M, hugepages=True, prefault=True)),
    (MemoryConfig, "size=16T", MemoryConfig(1 << 44)),
    (DiskConfig, "path=a.raw", DiskConfig(Path("a.raw"))),
    (
        DiskConfig,
        'path="a,b ""c"".raw",readonly=on,id=root,serial=S1,engine=python',
        DiskConfig(Path('a,b "c".raw'), True, "root", "S1", "python"),
    ),
    (SerialConfig, "off", SerialConfig(SerialMode.OFF)),
    (SerialConfig, "null", SerialConfig(SerialMode.NULL)),
    (SerialConfig, "tty", SerialConfig(SerialMode.TTY)),
    (SerialConfig, "pty", SerialConfig(SerialMode.PTY)),
    (SerialConfig, "file=/tmp/a=b", SerialConfig(SerialMode.FILE, Path("/tmp/a=b"))),
    (SerialConfig, "socket=s", SerialConfig(SerialMode.SOCKET, Path("s"))),
    (RngConfig, "src=/dev/random", RngConfig(Path("/dev/random"))),
    (
        DiskConfig,
        "path=a,queue_size=64,packed=on,event_idx=off,in_order=on",
        DiskConfig(Path("a"), queue_size=64, rings=RingConfig(True, event_idx=False, in_order=True)),
    ),
    (
        RngConfig,
        "indirect_desc=off,notification_data=on,queue_reset=off",
        RngConfig(rings=RingConfig(indirect_desc=False, notification_data=True, queue_reset=False)),
    ),
    (RngConfig, "id=entropy", RngConfig(id="entropy")),
    (EventMonitorConfig, "path=e.json", EventMonitorConfig(Path("e.json"))),
    (EventMonitorConfig, "fd=3", EventMonitorConfig(fd=3)),
]
RINGS = ", ".join(RING_KEYS)
SERIAL = "is none of off, null, tty, pty, file=PATH, socket=PATH"
BAD = [
    (CpusConfig, "boot=0", "--cpus boot: 0 is not within 1 … 254"),
    (CpusConfig, "boot=255", "--cpus boot: 255 is not within 1 … 254"),
    (CpusConfig, "boot=two", "--cpus boot: 'two' is not a number"),
    (CpusConfig, "boot=1,max=2", "--cpus max: 2 differs from boot=1; CPUs cannot be hotplugged yet"),
    (CpusConfig, "affinity=[1@[0]]", "--cpus affinity: vCPU 1 does not exist; boot=1"),
    (
        CpusConfig,
        "topology=2:2",
        "--cpus topology: topology '2:2' is not THREADS:CORES:DIES:SOCKETS (threads of a core, cores of a "
        "die, dies of a socket, sockets), such as 2:4:1:1",
    ),
    (CpusConfig, "boot=3,topology=2:1:1:1", "--cpus topology: 2:1:1:1 is 2 vCPUs, boot=3; make them equal"),
    (CpusConfig, "topology=2:256:1:1", "--cpus boot: 512 is not within 1 … 254"),
    (CpusConfig, "core_scheduling=on", "--cpus core_scheduling: 'on' is none of off, vm, vcpu"),
    (CpusConfig, "template=", "--cpus template: it is empty; give host, t2 or a file"),
    (
        CpusConfig,
        "cores=2",
        "--cpus cores: unknown key; --cpus takes boot, max, topology, template, affinity, core_scheduling",
    ),
    (MemoryConfig, "size=1M", "--memory size: 1048576 bytes is not within 16M … 16T"),
    (MemoryConfig, "size=17T", "--memory size: 18691697672192 bytes is not within 16M … 16T"),
    (
        MemoryConfig,
        "size=16777217",
        "--memory size: 16777217 bytes is not a multiple of 4096 (16777216 is, and 16781312)",
    ),
    (
        MemoryConfig,
        "size=17M,hugepages=on",
        "--memory size: 17825792 bytes is not a multiple of 2097152 (16777216 is, and 18874368)",
    ),
    (
        MemoryConfig,
        "hugepages=on,shared=off",
        "--memory hugepages: on with shared=off; give shared=on: huge pages come from a hugetlb memfd",
    ),
    (MemoryConfig, "shared=yes", "--memory shared: 'yes' is neither on nor off"),
    (
        MemoryConfig,
        "size=lots",
        "--memory size: 'lots' is not a size; write a whole number with K, M, G or T, such as 3584M",
    ),
    (DiskConfig, "readonly=on", "--disk: path= is missing"),
    (DiskConfig, 'path=""', "--disk: path= is missing"),
    (DiskConfig, "path=a,engine=rust", "--disk engine: 'rust' is neither native nor python"),
    (
        DiskConfig,
        "path=a,serial=123456789012345678901",
        "--disk serial: '123456789012345678901' is not at most 20 ASCII bytes",
    ),
    *(
        (
            DiskConfig,
            f"path=a,queue_size={n}",
            f"--disk queue_size: {n} is not a power of two from 4 to 32768",
        )
        for n in (0, 2, 6, 65536)
    ),
    (DiskConfig, "path=a,serial=\udcff", "--disk serial: '\\udcff' is not at most 20 ASCII bytes"),
    (
        DiskConfig,
        "path=a,cache=on",
        f"--disk cache: unknown key; --disk takes path, readonly, id, serial, engine, queue_size, {RINGS}",
    ),
    (SerialConfig, "", f"--serial: '' {SERIAL}"),
    (SerialConfig, "TTY", f"--serial: 'TTY' {SERIAL}"),
    (SerialConfig, "tty=x", f"--serial: 'tty=x' {SERIAL}"),
    (SerialConfig, "tty=", f"--serial: 'tty=' {SERIAL}"),
    (SerialConfig, "file", f"--serial: 'file' {SERIAL}"),
    (SerialConfig, "file=", f"--serial: 'file=' {SERIAL}"),
    (
        RngConfig,
        "source=/dev/random",
        f"--rng source: unknown key (did you mean src?); --rng takes src, id, {RINGS}",
    ),
    (RngConfig, "event_idx=1", "--rng event_idx: '1' is neither on nor off"),
    (RngConfig, "src=", "--rng: src= is missing"),
    (PlatformConfig, "irqchip=pic", "--platform irqchip: 'pic' is none of kernel, split"),
    (
        PlatformConfig,
        "irqchip=split,iommu=on",
        "--platform iommu: unknown key; --platform takes irqchip, tables",
    ),
    (PlatformConfig, "tables=dtb", "--platform tables: 'dtb' is none of acpi, fdt"),
    (PlatformConfig, "tables=", "--platform tables: '' is none of acpi, fdt"),
    (
        EventMonitorConfig,
        "path=a,fd=3",
        "--event-monitor: path=a and fd=3 was given; give exactly one of path= and fd=",
    ),
    (EventMonitorConfig, "fd=-1", "--event-monitor fd: '-1' is not a number"),
    (EventMonitorConfig, "path=", "--event-monitor: path= is missing"),
    (
        EventMonitorConfig,
        "",
        "--event-monitor: '' is not of the form key=value; `vmm run --help` lists the keys",
    ),
]


@pytest.mark.parametrize(("kind", "text", "expected"), GOOD)
def test_good(kind, text, expected):
    """The option means the value."""
    assert kind.parse(text) == expected


@pytest.mark.parametrize(("kind", "text", "message"), BAD)
def test_bad(kind, text, message):
    """The one line that the user sees names option, key, value and the cure."""
    with pytest.raises(ConfigError) as caught:
        kind.parse(text)
    assert str(caught.value) == message


@given(
    st.sampled_from(
        [
            CpusConfig,
            MemoryConfig,
            DiskConfig,
            SerialConfig,
            RngConfig,
            PlatformConfig,
            EventMonitorConfig,
        ]
    ),
    st.one_of(
        st.text(), st.from_regex(r"(boot|size|path|file|src|fd|affinity|id|irqchip)=[\x00-\xff]{0,20}")
    ),
)
def test_hostile(kind, text):
    """Any text is a configuration or a ConfigError."""
    try:
        result = kind.parse(text)
    except ConfigError as refused:
        result = refused
    assert isinstance(result, kind | ConfigError)


def disks(*ids):
    """Return disks of these ids."""
    return tuple(DiskConfig(Path(f"{number}.raw"), id=id_) for number, id_ in enumerate(ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disks": disks(*[""] * 17)}, "--disk: 17 disks; a virtio-mmio machine takes 16"),
        ({"disks": disks("a", "a")}, "id: 'a' names two devices"),
        ({"disks": disks("", "disk0")}, "id: 'disk0' names two devices"),
        ({"disks": disks("rng0")}, "id: 'rng0' names two devices"),
        ({"disks": disks("ioapic")}, "id: 'ioapic' is the id of a device that every machine has"),
        ({"disks": disks("rtc")}, "id: 'rtc' is the id of a device that every machine has"),
        ({"disks": disks("a b")}, "id: 'a b' is not 1 to 64 of A-Z a-z 0-9 . _ -"),
        ({"rng": RngConfig(id="")}, "id: '' is not 1 to 64 of A-Z a-z 0-9 . _ -"),
        ({"cmdline": "é"}, "--cmdline: 'é' is not ASCII without NUL"),
        ({"cmdline": "a\0b"}, "--cmdline: 'a\\x00b' is not ASCII without NUL"),
    ],
)
def test_whole_machines(change, message):
    """What only shows with all options together."""
    with pytest.raises(ConfigError) as caught:
        VmConfig(Path("vmlinuz"), **change)
    assert str(caught.value) == message


def test_disk_ids():
    """Disks without an id are numbered by their position."""
    config = VmConfig(Path("k"), disks=disks("", "root", ""))
    assert config.disk_ids() == ("disk0", "root", "disk2")


def test_values_are_frozen():
    """A configuration cannot change under a running machine."""
    with pytest.raises(AttributeError):
        VmConfig(Path("k")).cmdline = "x"


def test_ring_keys_are_those_of_the_devices():
    """Each ring feature that a transport can offer has its key, with the same default."""
    assert attrs.asdict(RingConfig()) == attrs.asdict(RingOptions())
    assert set(RING_KEYS) == set(attrs.asdict(RingConfig()))


def test_what_only_x86_has():
    """An AArch64 machine refuses what CPUID would tell, an x86-64 one what its APIC ids cannot."""
    templated = VmConfig(Path("k"), cpus=CpusConfig(template="t2"))
    grouped = VmConfig(Path("k"), cpus=CpusConfig.parse("topology=3:3:3:6"))
    arm64, x86 = architecture("aarch64"), architecture("x86_64")
    x86.check_options(templated)
    with pytest.raises(ConfigError, match=r"^--cpus template: t2 is told by CPUID, .*; leave it out$"):
        arm64.check_options(templated)
    arm64.check_options(grouped)
    with pytest.raises(ConfigError) as caught:
        x86.check_options(grouped)
    assert str(caught.value) == (
        "--cpus topology: 3:3:3:6 needs APIC id 362, at most 254 can be used; counts that are powers of two "
        "leave no holes between ids"
    )
