"""Debian's own kernels of three architectures, whole and damaged, beside what other programs read in them."""

import contextlib
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linux_loader import (
    Compression,
    GuestRange,
    KernelImage,
    LoaderError,
    UnknownFormatError,
    check,
    load,
    load_image,
)
from linux_loader._flat import unpack_zboot
from linux_loader._source import Source
from linux_loader.fdt import Fdt, FdtNode
from linux_loader.testing import RecordingMemory, build_zboot, pack
from vmm_testhost import SetupError
from vmm_testhost.debian import kernel, kernel_image
from vmm_testhost.pytest_plugin import LONG

MIB = 1 << 20
RAM = [(0, 512 * MIB)]
FOREIGN = {
    "aarch64": ("linux-image-cloud-arm64", ("trixie:arm64", "forky:arm64")),
    "riscv64": ("linux-image-riscv64", ("forky:riscv64", "trixie:riscv64")),
}
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
TREE = Fdt(FdtNode("", {"compatible": b"linux,dummy-virt\0"}))


def _image(arch):
    name, suites = FOREIGN[arch]
    reasons = []
    for suite in suites:
        try:
            return kernel_image(name, suite=suite)
        except SetupError as error:
            reasons.append(str(error))
    return pytest.skip(f"Debian's {arch} kernel cannot be had: {'; '.join(reasons)}")


@pytest.fixture(scope="session", params=FOREIGN)
def foreign(request):
    """The architecture and path of a Debian kernel for arm64, then riscv64; fetched once, never installed."""
    return request.param, _image(request.param)


@pytest.fixture(scope="session")
def amd64():
    """The bzImage and the vmlinux of a Debian kernel."""
    try:
        found = kernel()
    except SetupError as error:
        pytest.skip(f"Debian's kernel cannot be had: {error}")
    return {"bzimage": found.bzimage, "vmlinux": found.vmlinux()}


def test_a_foreign_kernel_loads(foreign):
    """Every byte of the file is where the header wants it, on this host of another architecture."""
    arch, path = foreign
    memory = RecordingMemory(RAM)
    loaded = load_image(memory, path, ram_ranges=RAM, fdt=TREE, initrd=b"070701", cmdline="quiet")
    data = path.read_bytes()
    text_offset, image_size, flags = struct.unpack_from("<8xQQQ", data)
    assert loaded.header.arch == arch
    assert (loaded.header.text_offset, loaded.header.image_size) == (text_offset, image_size)
    assert loaded.entry == text_offset
    assert loaded.kernel_range == GuestRange(text_offset, image_size)
    assert image_size > len(data)  # BSS, which the Rust crate leaves to chance
    assert memory.read(loaded.entry, len(data)) == data
    assert loaded.header.big_endian == bool(flags & 1)


def test_file_agrees(foreign):
    """What `file` says of byte order, page size and machine is what the header says here."""
    arch, path = foreign
    if shutil.which("file") is None:
        pytest.skip("file is not installed")
    with KernelImage.open(path) as image:
        header = image.flat
    told = subprocess.run(["file", "-b", path], capture_output=True, text=True, check=True).stdout
    assert {"aarch64": "ARM64", "riscv64": "RISC-V 64-bit"}[arch] in told
    if arch == "aarch64":
        assert "little-endian" in told
        assert int(re.search(r"(\d+)K pages", told)[1]) * 1024 == header.page_size


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_packed_foreign_kernel_is_the_same_kernel(wrapped, tmp_path):
    """gzip(1) around Debian's Image, and an EFI zboot file around it."""
    path = _image("aarch64")
    packed = tmp_path / "vmlinuz"
    if wrapped:
        packed.write_bytes(build_zboot(path.read_bytes()))
    else:
        with packed.open("wb") as out:
            subprocess.run(["gzip", "-1", "-c", path], stdout=out, check=True)
    plain = load_image(None, path, ram_ranges=RAM, fdt=TREE)
    assert load_image(None, packed, ram_ranges=RAM, fdt=TREE) == plain


def test_a_zboot_file_of_linux_itself():
    """Debian's loong64 kernel is one: zstd(1) finds what our reader does; our writer makes the like."""
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    try:
        data = kernel_image("linux-image-loong64", suite="forky:loong64").read_bytes()
    except SetupError as error:
        pytest.skip(f"Debian's loong64 kernel cannot be had: {error}")
    start = data.index(ZSTD_MAGIC)
    # It complains of what follows its frame: the unpacked size, and padding.
    told = subprocess.run(["zstd", "-dcq"], input=data[start:], capture_output=True, check=False).stdout
    assert told[:2] == b"MZ"
    unpacked = unpack_zboot(Source(data, "vmlinuz"), 1 << 30)
    assert unpacked == told
    packed_size = struct.unpack_from("<I", data, 12)[0]
    assert struct.unpack_from("<I", data, start + packed_size) == (len(told),)
    ours = build_zboot(told, Compression.ZSTD)
    assert (ours[:8], ours[24:56]) == (data[:8], data[24:56])  # but for the place and size of the payload
    assert unpack_zboot(Source(ours, "ours"), 1 << 30) == told
    with pytest.raises(UnknownFormatError, match="an EFI program"):
        KernelImage.from_bytes(data)  # no loader here knows LoongArch


CHANGES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255))
    | st.tuples(st.integers(0, 1 << 24), st.integers(0, 255)),
    min_size=1,
    max_size=12,
)


class Mutant:
    """A whole kernel in memory of which some bytes are changed for a while."""

    def __init__(self, data):
        self.data = bytearray(data)

    def attempt(self, changes, base, run):
        """Change bytes from ``base`` on, run on the whole, and change them back."""
        old = [(base + at, self.data[base + at]) for at, _ in changes if base + at < len(self.data)]
        for at, value in changes:
            if base + at < len(self.data):
                self.data[base + at] = value
        try:
            with KernelImage.from_bytes(self.data) as image:
                return run(image)
        except LoaderError:
            return None
        finally:
            for at, value in reversed(old):
                self.data[at] = value


@pytest.fixture(scope="session")
def mutant(foreign):
    """A foreign kernel to be damaged."""
    return Mutant(foreign[1].read_bytes())


@settings(max_examples=1000 if LONG else 60, deadline=None)
@given(changes=CHANGES)
def test_a_damaged_foreign_kernel(mutant, changes):
    """A LoaderError, or writes inside RAM; nothing else, whatever bytes are changed."""
    plan = mutant.attempt(
        changes, 0, lambda image: load_image(None, image, ram_ranges=RAM, fdt=TREE, initrd=b"i")
    )
    assert plan is None or all(GuestRange(*RAM[0]).contains(written) for written in plan.writes)


# Tens of megabytes are copied or unpacked for each example: fewer than where it is only planned.
WHOLE = settings(max_examples=200 if LONG else 4, deadline=None)


@WHOLE
@given(changes=CHANGES)
def test_a_damaged_foreign_kernel_is_loaded(mutant, changes):
    """Into memory go the writes that are reported, and the kernel as it is; on an error nothing."""
    memory = RecordingMemory(RAM)

    def run(image):
        loaded = load_image(memory, image, ram_ranges=RAM, fdt=TREE, initrd=b"i")
        assert memory.read(loaded.entry, image.size) == image.contents(0, image.size)
        return loaded

    loaded = mutant.attempt(changes, 0, run)
    assert memory.written == ([] if loaded is None else list(loaded.writes))


@pytest.fixture(scope="session")
def amd64_mutants(amd64):
    """Bzimage and vmlinux to be damaged, each with where its headers begin."""
    return [(Mutant(amd64["bzimage"].read_bytes()), 0x1F1), (Mutant(amd64["vmlinux"].read_bytes()), 0)]


@settings(max_examples=1000 if LONG else 60, deadline=None)
@given(which=st.sampled_from([0, 1]), changes=CHANGES)
def test_a_damaged_kernel(amd64_mutants, which, changes):
    """The same for bzImage and vmlinux, entered as they like best."""
    mutated, base = amd64_mutants[which]
    plan = mutated.attempt(changes, base, lambda image: check(image, ram_ranges=RAM, initrd=b"i"))
    assert plan is None or all(GuestRange(*RAM[0]).contains(written) for written in plan.writes)


@WHOLE
@given(which=st.sampled_from([0, 1]), changes=CHANGES)
def test_a_damaged_kernel_is_loaded(amd64_mutants, which, changes):
    """What is written is what is reported, each segment as the file has it; on an error nothing."""
    memory = RecordingMemory(RAM)

    def run(image):
        loaded = load(memory, image, ram_ranges=RAM, initrd=b"i", rng_seed=bytes(32))
        for segment in image.elf.segments if image.elf else ():
            found = memory.read(segment.memory.base, segment.file_size)
            assert found == image.contents(segment.offset, segment.file_size)
        return loaded

    mutated, base = amd64_mutants[which]
    loaded = mutated.attempt(changes, base, run)
    assert memory.written == ([] if loaded is None else list(loaded.writes))


@pytest.fixture(scope="session")
def packed(amd64):
    """A bzImage, a zboot file and a gzip file: damaged from where the payload begins; and what is inside."""
    arm64 = _image("aarch64").read_bytes()
    with KernelImage.open(amd64["bzimage"]) as image:
        start = image.bzimage.setup_size + image.bzimage.payload_offset
    return [
        (Mutant(amd64["bzimage"].read_bytes()), start, amd64["vmlinux"].read_bytes()),
        (Mutant(build_zboot(arm64)), 0, arm64),
        (Mutant(pack(arm64, Compression.GZIP)), 0, arm64),
    ]


@WHOLE
@given(which=st.sampled_from([0, 1, 2]), changes=CHANGES)
def test_a_damaged_payload(packed, which, changes):
    """A LoaderError, or the very kernel: what every format here has a checksum for."""

    def run(image):
        with contextlib.closing(image.extract_vmlinux() if image.bzimage else image) as inner:
            return inner.contents(0, inner.size) == whole

    mutated, base, whole = packed[which]
    assert mutated.attempt(changes, base, run) is not False


def test_readelf_agrees(amd64):
    """Each segment that readelf lists is in guest memory, zeros behind it up to its memory size."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf (binutils) is not installed")
    told = subprocess.run(
        ["readelf", "-lW", amd64["vmlinux"]], capture_output=True, text=True, check=True
    ).stdout
    segments = [[int(n, 16) for n in line.split()[1:6]] for line in told.splitlines() if " LOAD " in line]
    memory = RecordingMemory(RAM, fill=0xAA)
    loaded = load(memory, amd64["vmlinux"], ram_ranges=RAM, fresh_memory=False)
    data = amd64["vmlinux"].read_bytes()
    assert len(segments) >= 3
    for offset, _, physical, file_size, memory_size in segments:
        assert memory.read(physical, file_size) == data[offset : offset + file_size]
        assert memory.read(physical + file_size, memory_size - file_size) == bytes(memory_size - file_size)
    assert f"Entry point {loaded.entry.rip:#x}" in told
