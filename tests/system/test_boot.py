"""Stock Debian kernels, booted by our VMM to userspace."""

import re
import secrets
from pathlib import Path

import attrs
import guest
import pytest
from both_hosts import both_hosts
from vmm_reference import CpusConfig, DiskConfig, EndReason, MemoryConfig

CLOCKS = {"x86_64": "kvm-clock|tsc", "aarch64": "arch_sys_counter"}
FNV_PRIME, FNV_START = 0x100000001B3, 0xCBF29CE484222325


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bits: the function the guest answers with."""
    value = FNV_START
    for byte in data:
        value = (value ^ byte) * FNV_PRIME % 2**64
    return value


@both_hosts()
@pytest.mark.parametrize("engine", ["native", "python"])
def test_guest_writes_reach_the_image(boot, disk, engine):
    """A nonce written to ext4 on virtio-blk is in the image afterwards, with either data path."""
    nonce = secrets.token_hex(16)
    with boot(jobs=f"vmm.nonce={nonce}", disks=[DiskConfig(disk, engine=engine)]) as machine:
        machine.console.expect(f"guest: wrote nonce {nonce}")
        assert machine.end().reason is EndReason.POWEROFF
        stats = machine.vmm.machine.tree.get("disk0")
        assert stats is not None
    assert guest.read_from_disk(disk, "/vmm-nonce") == nonce.encode()


@both_hosts(aarch64=False)
@pytest.mark.parametrize("engine", ["native", "python"])
def test_guest_reads_every_byte(boot, tmp_path, engine):
    """The checksum of a random disk, read whole by the guest, is that of the image."""
    image = tmp_path / "random.raw"
    data = secrets.token_bytes(1 << 20)
    image.write_bytes(data)
    disk = DiskConfig(image, readonly=True, engine=engine, serial="S-1234")
    with boot(jobs="vmm.disktest=1 vmm.report=1", disks=[disk]) as machine:
        found = machine.console.expect(r"guest: disk fnv (\w+) (\d+)\n")
        assert (found[1], int(found[2])) == (f"{fnv(data):016x}", len(data))
        machine.console.expect(r"guest: /sys/block/vda/ro 1")
        machine.console.expect(r"guest: /sys/block/vda/serial S-1234")
        assert machine.end().reason is EndReason.POWEROFF
    assert image.read_bytes() == data


@both_hosts()
def test_guest_finds_its_platform(boot, arch):
    """CPUs, RAM map, clock source and devices are what was configured."""
    size = 256 << 20
    with boot(jobs="vmm.report=1", cpus=CpusConfig(2, 2), memory=MemoryConfig(size=size)) as machine:
        machine.end()
        text = machine.console.text
    assert "guest: /sys/devices/system/cpu/online 0-1" in text
    assert re.search(f"current_clocksource ({CLOCKS[arch]})\n", text)
    assert "guest: /sys/class/misc/hw_random/rng_current virtio_rng" in text
    total = re.search(r"/proc/meminfo MemTotal: +(\d+) kB", text)
    assert total
    assert 0.6 * size < int(total[1]) << 10 < size
    if arch == "x86_64":  # a device tree's memory is not in /sys
        assert abs(ram_in(text) - size) <= 1 << 20


@both_hosts(aarch64=False)
def test_a_shell_script_as_init(boot):
    """A script of busybox runs after our init, with its file systems mounted."""
    with boot(
        script="echo guest: $((6 * 7)) $(uname -r) $(ls /sys/class | wc -l); poweroff -f", modules=()
    ) as m:
        assert int(m.console.expect(r"guest: 42 6\.12\S+ (\d+)\n")[1]) > 10
        assert m.end().reason is EndReason.POWEROFF


def ram_in(report: str) -> int:
    """Return the bytes of System RAM in the guest's /sys/firmware/memmap."""
    entries: dict[str, dict[str, str]] = {}
    for line in report.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[1].startswith("/sys/firmware/memmap/"):
            entry = Path(parts[1])
            entries.setdefault(entry.parent.name, {})[entry.name] = parts[2]
    ram = [e for e in entries.values() if e["type"] == "System RAM"]
    return sum(int(e["end"], 16) - int(e["start"], 16) + 1 for e in ram)


@both_hosts()
def test_pause_stops_the_guest(boot):
    """A paused guest answers only after it is resumed."""
    with boot(jobs="vmm.challenge=1", modules=()) as machine:
        machine.console.expect("guest: ready")
        machine.vmm.pause()
        machine.send("x\n")
        assert "answer" not in machine.console.text
        machine.vmm.resume()
        machine.console.expect("guest: answer")
        assert machine.end().reason is EndReason.POWEROFF


@attrs.define
class Doubler:
    """A device of the test's own: a register that reads back double what was written."""

    value: int = 21

    def read(self, offset: int, size: int) -> int:
        return 2 * self.value if offset == 0 and size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0 and size == 4:
            self.value = value

    def describe(self):
        from vm_device.platform import AddressRange, AddressSpace, DeviceNode

        return DeviceNode("doubler", "doubler", (AddressRange(AddressSpace.MMIO, 0xDFFF_0000, 0x1000),))


@both_hosts()
def test_a_device_of_ones_own(boot):
    """A user-written MMIO device is seen by a booted Linux, and sees what Linux writes."""
    device = Doubler()
    with boot(jobs="vmm.reg=0xdfff0000", modules=(), devices=[device]) as machine:
        machine.console.expect("guest: reg 42\n")
        assert machine.end().reason is EndReason.POWEROFF
    assert device.value == 43
