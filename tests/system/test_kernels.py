"""Debian's kernels, old and new: an initramfs of every compression and a root on disk; no initramfs."""

import bz2
import functools
import gzip
import lzma
import re
import secrets
import struct

import guest
import kvm_ioctls
import lz4.block
import pytest
import zstandard
from vmm_reference import (
    BootProtocol,
    DiskConfig,
    EndReason,
    Irqchip,
    PlatformConfig,
    RngConfig,
    VmConfig,
    Vmm,
)
from vmm_testhost.pytest_plugin import LONG

FNV_PRIME, FNV_START = 0x100000001B3, 0xCBF29CE484222325
# What a guest without an initramfs would need built in to find a disk of ours.
DRIVERS = ("VIRTIO_MMIO", "VIRTIO_BLK")
AUTO, LINUX64, PVH = BootProtocol.AUTO, BootProtocol.LINUX64, BootProtocol.PVH
KERNEL, SPLIT = Irqchip.KERNEL, Irqchip.SPLIT


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bits: the function the guest answers with."""
    value = FNV_START
    for byte in data:
        value = (value ^ byte) * FNV_PRIME % 2**64
    return value


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, check=lzma.CHECK_CRC32)  # the kernel knows no other check


def _lz4(data: bytes) -> bytes:
    """The framing that kernels know, the legacy one: a magic, then blocks of at most 8 MiB, sizes first."""
    framed = bytes.fromhex("02214c18")
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        framed += struct.pack("<I", len(block)) + block
    return framed


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


on_x86 = functools.partial(pytest.param, marks=pytest.mark.kvm_full)
on_arm64 = functools.partial(pytest.param, marks=pytest.mark.arm64)
LONG_ON_ARM64 = [
    on_arm64("6.12-generic", False, AUTO, gzip.compress, KERNEL, id="6.12-generic-aarch64"),
]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("name", "elf", "protocol", "pack", "irqchip"),
    [
        on_x86("6.1-generic", True, AUTO, bytes, KERNEL, id="6.1-generic-elf"),
        on_x86("6.1-cloud", False, AUTO, _lz4, KERNEL, id="6.1-cloud-bzimage"),
        on_x86("6.12-generic", False, AUTO, bz2.compress, KERNEL, id="6.12-generic-bzimage"),
        on_x86("6.12-cloud", False, LINUX64, gzip.compress, KERNEL, id="6.12-cloud-bzimage"),
        on_x86("6.12-cloud", True, LINUX64, _xz, KERNEL, id="6.12-cloud-elf-linux64"),
        on_x86("6.12-cloud", True, PVH, bytes, KERNEL, id="6.12-cloud-elf-pvh"),
        on_x86(guest.LATER, False, AUTO, _zstd, KERNEL, id="later-cloud-bzimage"),
        on_x86(guest.LATER, True, PVH, _lz4, KERNEL, id="later-cloud-elf-pvh"),
        # The other two boot so in test_irqchip.py.
        on_x86("6.1-cloud", True, PVH, bytes, SPLIT, id="6.1-cloud-split"),
        on_x86("6.12-generic", True, AUTO, bytes, SPLIT, id="6.12-generic-split"),
        on_x86(guest.LATER, True, AUTO, bytes, SPLIT, id="later-cloud-split"),
        on_arm64("6.12-cloud", False, AUTO, bytes, KERNEL, id="6.12-cloud-aarch64"),
        *(LONG_ON_ARM64 if LONG else ()),
    ],
)
def test_root_on_disk_answers_a_challenge(tmp_path, console, name, elf, protocol, pack, irqchip):
    """The init on the disk answers a line it cannot know; what it used shows in the devices' counters."""
    chosen = guest.known_guest(name, elf=elf)
    if name == guest.LATER:
        assert tuple(map(int, chosen.version.split(".")[:2])) >= (6, 17)
    disk, image, nonce, challenge = (
        tmp_path / "root",
        tmp_path / "initrd",
        secrets.token_hex(8),
        secrets.token_hex(7),  # with its line end it fits into the UART's FIFO
    )
    guest.root_disk(disk, 16 << 20, bootable=True)
    image.write_bytes(pack(guest.initramfs(chosen)))
    jobs = f"root=/dev/vda vmm.nonce={nonce} vmm.challenge=1 vmm.irqs=1"
    config = VmConfig(
        chosen.image,
        initramfs=image,
        cmdline=f"console={guest.CONSOLE} quiet panic=-1 rdinit=/vmm-init {jobs}",
        disks=(DiskConfig(disk),),
        rng=RngConfig(),
        boot_protocol=protocol,
        platform=PlatformConfig(irqchip),
    )
    with Vmm(config, serial_out=console.write) as vmm:
        vmm.boot()
        console.expect("guest: ready")
        assert vmm.machine.serial is not None
        assert vmm.machine.serial.enqueue(f"{challenge}\n".encode()) == len(challenge) + 1
        answer = console.expect(r"guest: answer (\w+) (\S+)\n")
        assert (answer[1], answer[2]) == (f"{fnv(challenge.encode()):016x}", chosen.version)
        interrupts = int(console.expect(r"guest: virtio interrupts (\d+)\n")[1])
        end = vmm.wait(120)
        used = vmm.machine.virtio[0].device.stats()
        exits = vmm.machine.vcpus[0].stats().exits
    assert end is not None, console.text
    assert end.reason is EndReason.POWEROFF
    assert used.host_errors == 0
    # /sbin/init came from the disk, but for pages that it never touches.
    assert used.read_bytes > len(guest.init_program()) // 2
    assert used.written_bytes >= 4096
    assert interrupts > 10
    # The console and virtio's registers; queues are notified by doorbells, without an exit.
    registers = exits[int(kvm_ioctls.ExitReason.MMIO)]
    if guest.ARCH == "x86_64":
        assert exits[int(kvm_ioctls.ExitReason.IO)] > len(console.text)
        assert registers > 50
    else:  # no ports
        assert registers > len(console.text) + 50
    assert guest.read_from_disk(disk, "/vmm-nonce") == nonce.encode()


@pytest.mark.kvm_full
@pytest.mark.parametrize("name", ["6.12-cloud", guest.LATER])
def test_without_an_initramfs(disk, console, name):
    """A plain command line and no initramfs: to the panic that Linux documents, and a reset by `panic=-1`."""
    chosen = guest.known_guest(name)
    config = VmConfig(
        chosen.image, cmdline="console=ttyS0 quiet panic=-1 root=/dev/vda", disks=(DiskConfig(disk),)
    )
    with Vmm(config, serial_out=console.write) as vmm:
        vmm.boot()
        end = vmm.wait(120)
        used = vmm.machine.virtio[0].device.stats()
    assert end is not None, console.text
    assert end.reason is EndReason.RESET
    assert "Kernel panic - not syncing: VFS: Unable to mount root fs" in console.text
    assert used.read_bytes == 0  # no driver ever saw the disk


@pytest.mark.parametrize("name", guest.KERNELS)
def test_stock_kernels_have_no_disk_driver_built_in(name):
    """Why there is no root on disk without an initramfs: in each of them both drivers are modules."""
    found = guest.known_guest(name).debian
    if found is None or not found.config.exists():
        pytest.skip(f"no configuration of {name} is at hand")
    config = found.config.read_text()
    assert {
        driver: re.search(rf"^CONFIG_{driver}=(.)", config, re.MULTILINE)[1] for driver in DRIVERS
    } == dict.fromkeys(DRIVERS, "m")
