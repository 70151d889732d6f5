"""Module order, kernel packages and the vmlinux inside a bzImage."""

import gzip
import lzma
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_testhost import _kernel
from vmm_testhost._errors import KernelImageError, SetupError

DEP = """\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/arch/x86/kvm/kvm.ko.xz kernel/virt/lib/irqbypass.ko.xz
kernel/arch/x86/kvm/kvm.ko.xz: kernel/virt/lib/irqbypass.ko.xz
kernel/virt/lib/irqbypass.ko.xz:
"""


def test_dependencies_come_first_and_once():
    """The order of insertion is the reverse of modules.dep's lines, without repetition."""
    order = [
        _kernel.module_name(path) for path in _kernel.order_modules(DEP, ["9p", "kvm_amd", "9pnet"], set())
    ]
    assert order == ["netfs", "9pnet", "9p", "irqbypass", "kvm", "kvm_amd"]


def test_built_in_module_is_left_out():
    """What the kernel has built in needs no file."""
    assert _kernel.order_modules(DEP, ["virtio-pci"], {"virtio_pci"}) == []


def test_unknown_module_is_refused():
    """A misspelt module is named in the error."""
    with pytest.raises(
        KernelImageError, match=r"module kvm_arm: neither in modules\.dep \(6 modules\) nor built in"
    ):
        _kernel.order_modules(DEP, ["kvm_arm"], set())


def test_image_dependency_finds_the_image():
    """The metapackage's dependency on the versioned image is found among others."""
    depends = "linux-base, linux-image-6.12.1+deb12-amd64 (= 6.12.1-1) | x, initramfs-tools"
    assert _kernel.image_dependency(depends, "linux-image-6.12-amd64") == "linux-image-6.12.1+deb12-amd64"


def test_metapackage_without_image_is_refused():
    """A package that is no kernel is named with its dependencies."""
    with pytest.raises(KernelImageError, match=r"package hello depends on no linux-image-\*: 'libc6'"):
        _kernel.image_dependency("libc6", "hello")


def bzimage(payload, protocol=0x20F, setup_sects=4):
    """Build the smallest image with a setup header and that payload."""
    image = bytearray((setup_sects + 1) * 512)
    image[0x1F1] = setup_sects
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload


ELF = b"\x7fELF" + bytes(range(256)) * 40


def zstd(data):
    """Compress as the kernel's build does."""
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def lz4_legacy(data):
    """Compress as `lz4 -l` does."""
    block = pytest.importorskip("lz4.block").compress(data, store_size=False)
    return bytes.fromhex("02214c18") + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, pytest.param(zstd, id="zstd"), lz4_legacy])
def test_payload_comes_out_despite_size_word(pack):
    """Each compression is undone, with the unpacked size word behind the stream."""
    payload = pack(ELF) + struct.pack("<I", len(ELF))
    assert _kernel.extract_vmlinux(bzimage(payload)) == ELF


def test_zstd_tool_does_without_the_library(monkeypatch):
    """Without the Python library the zstd program does the same."""
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(_kernel.importlib, "import_module", missing)
    assert _kernel.extract_vmlinux(bzimage(zstd(ELF) + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "bzImage of 0 bytes: no HdrS at 0x202"),
        (bzimage(b"x", protocol=0x207), "bzImage: boot protocol 0x207, need 0x208"),
        (bzimage(b"abcdefgh"), "bzImage payload: unknown compression, it starts with 616263646566"),
        (
            bzimage(gzip.compress(b"not an ELF")),
            "bzImage payload: starts with 6e6f7420, not with an ELF header",
        ),
        (bzimage(b"xxxxxxxx")[:-1], "bzImage: payload ends at 0xa18, the file at 0xa17"),
        (
            bzimage(lzma.compress(ELF)[:-40]),
            "bzImage payload: damaged: [0-9]+ bytes came out, its last word says",
        ),
    ],
)
def test_damaged_images_are_refused(image, message):
    """Each kind of damage has its own sentence."""
    with pytest.raises(KernelImageError, match=message):
        _kernel.extract_vmlinux(image)


MAGICS = [b"", *_kernel.UNPACKERS]


@given(
    st.builds(bytes.__add__, st.sampled_from(MAGICS), st.binary(max_size=3000)),
    st.just(16) | st.integers(0, 2**32 - 1),
    st.integers(0, 5000) | st.integers(0, 2**32 - 1),
)
def test_arbitrary_bytes_end_in_our_error(noise, offset, length):
    """Whatever the header claims, only KernelImageError comes out."""
    image = bytearray(bzimage(noise))
    struct.pack_into("<II", image, 0x248, offset, length)
    with pytest.raises(KernelImageError):
        _kernel.extract_vmlinux(bytes(image))


def test_host_kernel_falls_back(monkeypatch):
    """Where the best kernel is not to be had the next one serves; where none is, the first error shows."""
    there = {"b": "kernel b"}

    def fetch(name):
        if name not in there:
            raise SetupError(f"no {name}")
        return there[name]

    monkeypatch.setattr(_kernel, "HOST_KERNELS", ("a", "b"))
    monkeypatch.setattr(_kernel, "is_cached", lambda _: False)
    monkeypatch.setattr(_kernel, "kernel", fetch)
    assert _kernel.host_kernel() == "kernel b"
    there.clear()
    with pytest.raises(SetupError, match="no a"):
        _kernel.host_kernel()


def test_cached_fallback_is_not_asked_for_again(monkeypatch):
    """A fallback in the cache is used at once, so that a launch without network stays fast."""
    monkeypatch.setattr(_kernel, "HOST_KERNELS", ("a", "b"))
    monkeypatch.setattr(_kernel, "is_cached", lambda name: name == "b")
    monkeypatch.setattr(_kernel, "kernel", lambda name: name)
    assert _kernel.host_kernel() == "b"
