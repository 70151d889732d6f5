"""Debian's bzImage, started on QEMU's PC at its 32-bit entry from what the loader wrote."""

import shutil
import subprocess
import threading

import pytest
from linux_loader import BootProtocol, E820Entry, load
from linux_loader.testing import RecordingMemory
from vmm_testhost import SetupError
from vmm_testhost.debian import kernel

MIB = 1 << 20
RAM = [(0, 512 * MIB)]
CMDLINE = "console=ttyS0 earlyprintk=serial,ttyS0 acpi=off panic=-1"
# From the reset vector into the state that the entry needs, and nowhere else: the GDT is the loader's.
ROM = """
    .code16
base:
    .org 0xff00
reset:
    cli
    lgdtl %cs:table - base
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl ${cs:#x}, $flat
    .code32
flat:
    mov ${ds:#x}, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %fs
    mov %ax, %gs
    mov %ax, %ss
    mov ${esi:#x}, %esi
    xor %ebx, %ebx
    xor %ebp, %ebp
    xor %edi, %edi
    mov ${eip:#x}, %eax
    jmp *%eax
table:
    .short {limit:#x}
    .long {gdt:#x}
    .org 0xfff0
    .code16
    jmp reset
    .org 0xffff
    .byte 0
"""


def rom(folder, state):
    """A ROM of 64 KiB that ends at 4 GiB and starts the kernel in an entry state."""
    base = 0xFFFF_0000
    source = ROM.format(
        cs=state.cs.selector, ds=state.ds.selector, esi=state.rsi, eip=state.rip,
        gdt=state.gdt.base, limit=state.gdt.limit,
    )  # fmt: skip
    (folder / "rom.s").write_text(source)
    for command in (
        "as --32 -o rom.o rom.s",
        f"ld -m elf_i386 -Ttext={base:#x} --oformat binary -o rom.bin rom.o",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=240)
    assert (folder / "rom.bin").stat().st_size == 0x1_0000
    return folder / "rom.bin"


def until(words, command):
    """What a program prints up to the line with these words: without a BIOS this PC has no timer."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        for line in process.stdout:
            lines.append(line)
            if words in line:
                break
        timer.cancel()
        process.kill()
    return "".join(lines)


@pytest.mark.testhost
def test_a_stock_kernel_starts(tmp_path):
    """It unpacks itself, and finds command line, memory map of two lists, seed and initrd."""
    for tool in ("qemu-system-x86_64", "as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    try:
        image = kernel().bzimage
    except SetupError as error:
        pytest.skip(f"Debian's kernel cannot be had: {error}")
    memory = RecordingMemory(RAM)
    holes = [E820Entry(300 * MIB + at * 0x2000, 0x1000) for at in range(100)]
    loaded = load(
        memory, image, ram_ranges=RAM, protocol=BootProtocol.LINUX32, cmdline=CMDLINE, reserved=holes,
        initrd=b"070701" + b"0" * 104, rng_seed=bytes(range(32)),
    )  # fmt: skip
    command = f"qemu-system-x86_64 -M pc -m 512 -bios {rom(tmp_path, loaded.entry)} -nodefaults -no-reboot"
    command += " -display none -serial stdio"
    for number, part in enumerate(loaded.writes):
        file = tmp_path / str(number)
        file.write_bytes(memory.read(part.base, part.size))
        command += f" -device loader,file={file},addr={part.base:#x},force-raw=on"
    said = until("legacy console [ttyS0] enabled", command.split())
    first, last = holes[0], holes[-1]
    for words in (
        f"Command line: {CMDLINE}",
        "extended physical RAM map",
        f"[mem {first.base:#018x}-{first.base + 0xFFF:#018x}] reserved",
        f"[mem {last.base:#018x}-{last.base + 0xFFF:#018x}] reserved",
        "random: crng init done",
        f"RAMDISK: [mem {loaded.initrd_range.base:#010x}-",
    ):
        assert words in said, said
