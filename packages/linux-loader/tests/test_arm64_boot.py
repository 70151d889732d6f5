"""Debian's arm64 kernel, started on QEMU's board from what the loader wrote and our tree of that board."""

import shutil
import struct
import subprocess

import attrs
import pytest
from linux_loader import GuestRange, load_image
from linux_loader.fdt import platform_tree
from linux_loader.testing import RecordingMemory
from linux_loader.uefi import tables_address, uefi_handover
from vm_device import Pl011, Pl031
from vm_device.platform import AddressRange, AddressSpace, CpuNode, GicNode, MemoryNode, Platform
from vmm_testhost import SetupError
from vmm_testhost.debian import kernel_image

MIB = 1 << 20
BASE, SIZE = 0x4000_0000, 512 * MIB
# QEMU puts a tree of its own at the start of RAM; the last page is for the code that sets X0.
OCCUPIED = GuestRange(BASE, 2 * MIB)
START = GuestRange(BASE + SIZE - 4096, 4096)
CMDLINE = "console=ttyAMA0 earlycon=pl011,0x9000000 panic=-1"


def mmio(base, size):
    """A range of the MMIO space."""
    return AddressRange(AddressSpace.MMIO, base, size)


def virt_board():
    """QEMU's machine "virt" with a GICv3, as we describe machines: its map is in hw/arm/virt.c."""
    return Platform(
        "aarch64",
        cpus=(CpuNode(0, 0), CpuNode(1, 1)),
        memory=(MemoryNode(BASE, SIZE),),
        devices=(Pl011.describe(), Pl031.describe()),
        gic=GicNode(mmio(0x800_0000, 0x1_0000), mmio(0x80A_0000, 0xF6_0000), mmio(0x808_0000, 0x2_0000)),
    )


def start_code(loaded):
    """LDR X0, tree; X1 = X2 = X3 = 0; LDR X4, entry; BR X4: the state that booting.rst asks for."""
    code = (0x5800_0100, 0xD280_0001, 0xD280_0002, 0xD280_0003, 0x5800_00C4, 0xD61F_0080, 0, 0)
    return struct.pack("<8I2Q", *code, loaded.fdt_range.base, loaded.entry)


def run(tmp_path, prepare):
    """Start the kernel on the board, and return what it says; `prepare` writes tables and returns a tree."""
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 (qemu-system-arm) is not installed")
    try:
        kernel = kernel_image("linux-image-cloud-arm64", suite="trixie:arm64")
    except SetupError as error:
        pytest.skip(f"Debian's arm64 kernel cannot be had: {error}")
    memory = RecordingMemory([(BASE, SIZE)])
    fdt, tables = prepare(memory)
    reserved = attrs.evolve(fdt, reservations=(*fdt.reservations, START, OCCUPIED))
    loaded = load_image(
        memory,
        kernel,
        ram_ranges=[(BASE, SIZE)],
        fdt=reserved,
        cmdline=CMDLINE,
        initrd=b"070701" + b"0" * 104,
        rng_seed=bytes(32),
    )
    memory.write(START.base, start_code(loaded))
    command = "qemu-system-aarch64 -M virt,gic-version=3 -cpu cortex-a57 -smp 2 -m 512 -nodefaults -no-reboot"
    command += f" -display none -serial stdio -device loader,addr={START.base:#x},cpu-num=0"
    parts = [loaded.kernel_range, loaded.initrd_range, loaded.fdt_range, START, *tables]
    for number, part in enumerate(parts):
        file = tmp_path / str(number)
        file.write_bytes(memory.read(part.base, part.size))
        command += f" -device loader,file={file},addr={part.base:#x},force-raw=on"
    done = subprocess.run(command.split(), capture_output=True, timeout=240, check=True)
    return done.stdout.decode(errors="replace")


SAID = (
    f"Kernel command line: {CMDLINE}",
    "psci: PSCIv1.",
    "GICv3:",
    "arch_timer: cp15 timer(s) running",
    "smp: Brought up 1 node, 2 CPUs",
    "random: crng init done",
    "Trying to unpack rootfs image as initramfs",
    "Kernel panic - not syncing: VFS: Unable to mount root fs",
)


@pytest.mark.testhost
def test_a_stock_kernel_starts(tmp_path):
    """It finds model, processors, PSCI, GIC and ITS, timer, console, clock, command line and initrd."""
    said = run(tmp_path, lambda _memory: (platform_tree(virt_board()), ()))
    for words in (
        *SAID,
        "Machine model: linux,dummy-virt",
        "ITS [mem 0x08080000-0x0809ffff]",
        "9000000.serial: ttyAMA0 at MMIO 0x9000000",
        "rtc-pl031 9010000.rtc: registered as rtc0",
    ):
        assert words in said, said


@pytest.mark.testhost
def test_a_stock_kernel_finds_acpi_tables(tmp_path):
    """The system table leads it to tables of the same board, of which it complains about nothing."""
    acpi_tables = pytest.importorskip("acpi_tables")

    def prepare(memory):
        place = OCCUPIED.end
        tables = acpi_tables.build_tables(virt_board(), tables_address(place))
        behind = GuestRange(tables.address, len(tables.blob))
        handover = uefi_handover(place, behind, tables.rsdp_address, [(BASE, SIZE)])
        memory.write(handover.address, handover.blob)
        memory.write(tables.address, tables.blob)
        return handover.fdt, [GuestRange(place, len(handover.blob)), behind]

    said = run(tmp_path, prepare)
    for words in (*SAID, "efi: EFI v2.10 by linux-loader", "ARMH0011:00: ttyAMA0 at MMIO 0x9000000"):
        assert words in said, said
    assert "WARNING" not in said, said
    assert "BUG" not in said, said
