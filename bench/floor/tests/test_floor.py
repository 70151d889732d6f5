"""The floor itself: it builds without warnings, refuses what it cannot boot, and boots both kernel formats.

The kernels here are a few instructions long, so that any /dev/kvm will do. Run with `pytest bench/floor`.
"""

import struct
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
FLOOR = HERE / "bin" / "floor"
SAY_X = b"\x66\xba\xf8\x03\xb0X\xee"  # mov dx, 0x3f8; mov al, 'X'; out dx, al
BOOTED = b"\x66\xba\xf0\x05\xb0\x7b\xee"  # the same: 0x7b to 0x5f0
HALT = b"\xf4"


@pytest.fixture(scope="module", autouse=True)
def built():
    """Build everything once; warnings are errors in the Makefile."""
    subprocess.run(["make", "-s", "-C", HERE], check=True, capture_output=True, text=True, timeout=50)


def _floor(tmp_path, kernel, *words):
    path = tmp_path / "kernel"
    path.write_bytes(kernel)
    return subprocess.run(
        [FLOOR, "--kernel", path, "--memory", "32", *words], capture_output=True, text=True, timeout=50
    )


def _elf(code, entry=0x10_0000):
    """Return a vmlinux of one segment at 1 MiB, with a PVH note that enters it."""
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    body = note + code
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    start = 64 + 2 * 56
    notes = struct.pack("<IIQQQQQQ", 4, 0, start, 0, 0, len(note), len(note), 4)
    load = struct.pack("<IIQQQQQQ", 1, 5, start + len(note), 0, 0x10_0000, len(code), len(code), 4096)
    return head + notes + load + body


def _bzimage(code):
    """Return a bzImage of one setup sector whose 64-bit entry (512 bytes in) is ``code``."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x201:0x206] = b"\x70HdrS"
    struct.pack_into("<H", setup, 0x236, 1)
    struct.pack_into("<QI", setup, 0x258, 0x100_0000, 0x1000)
    return bytes(setup) + bytes(512) + code


@pytest.mark.parametrize("make_kernel", [_elf, _bzimage])
def test_it_boots_and_stops_at_the_timer(kvm, tmp_path, make_kernel):
    """The console comes first, then the figure a benchmark reads."""
    done = _floor(tmp_path, make_kernel(SAY_X + BOOTED + HALT))
    assert done.returncode == 0, done.stderr
    console, total, _ = done.stdout.split("\n")
    assert console == "X"
    assert 0 <= float(total.removeprefix("floor: ").removesuffix(" s")) < 50


def test_an_initrd_and_tables_are_placed(kvm, tmp_path):
    """The last page holds the initrd, the given address the tables: the guest reads each aloud."""
    (tmp_path / "initrd").write_bytes(b"I")
    (tmp_path / "tables").write_bytes(b"T")
    speak = b"".join(
        b"\xa0" + struct.pack("<I", at) + b"\x66\xba\xf8\x03\xee" for at in (0x1FF_F000, 0xE_0000)
    )
    words = ("--initrd", tmp_path / "initrd", "--acpi", f"{tmp_path}/tables@0xe0000")
    done = _floor(tmp_path, _elf(speak + BOOTED), *words)
    assert done.stdout.startswith("IT\n"), done.stderr


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (b"#!/bin/sh\n", "neither ELF nor bzImage"),
        (_elf(HALT).replace(b"Xen", b"Foo"), "no PVH entry note"),
        (_bzimage(HALT).replace(b"HdrS", b"Hdr5"), "neither ELF nor bzImage"),
        (_elf(HALT).replace(struct.pack("<Q", 0x10_0000), struct.pack("<Q", 1 << 32)), "larger --memory"),
        (_elf(b"\xb0\xfe\xe6\x64"), "restarted before"),
    ],
)
def test_what_does_not_boot_is_refused(kvm, tmp_path, kernel, message):
    """One sentence, status 2."""
    done = _floor(tmp_path, kernel)
    assert done.returncode == 2
    assert message in done.stderr


def test_usage_is_shown(kvm):
    """No kernel, no boot."""
    done = subprocess.run([FLOOR], capture_output=True, text=True, timeout=50)
    assert done.returncode == 2
    assert "usage: floor --kernel" in done.stderr


def test_the_archive_is_one_the_kernel_unpacks():
    """Members, modes and device numbers as newc spells them."""
    data = (HERE / "bin" / "initramfs.cpio").read_bytes()
    names, at = {}, 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 109 + fields[11]].decode()
        names[name] = oct(fields[1])
        body = (at + 110 + fields[11] + 3) & ~3
        at = (body + fields[6] + 3) & ~3
    assert names == {"dev": "0o40755", "dev/console": "0o20600", "init": "0o100755", "TRAILER!!!": "0o0"}
    assert data.count((HERE / "bin" / "init").read_bytes()) == 1


@pytest.fixture
def kvm():
    """Skip where there is no usable /dev/kvm."""
    try:
        Path("/dev/kvm").open("rb+", buffering=0).close()
    except OSError as error:
        pytest.skip(f"/dev/kvm: {error}")
