"""The AArch64 host: a board with EL2, Debian's kernel, and its programs over this machine's files."""

from vmm_testhost._apt import TOOLS
from vmm_testhost._arch.base import Architecture, Host
from vmm_testhost._kernel import kernel
from vmm_testhost._userland import userland

KERNEL, KERNEL_SUITE = "linux-image-arm64", "trixie:arm64"  # 6.12, an uncompressed Image
# The oldest CPython that the toolkit supports, so that what runs there runs on later ones.
SUITE = "bookworm:arm64"
PACKAGES = (
    *("python3", "python3-cffi-backend", "python3-attr", "python3-pytest", "python3-hypothesis"),
    *("bash", "busybox-static", "coreutils", "dash", "e2fsprogs", "findutils", "gawk", "grep"),
    *("iproute2", "kmod", "mount", "procps", "sed", "util-linux"),
)


def find_host() -> Host:
    """Return what a launch needs, fetched where it is missing."""
    host = kernel(KERNEL, suite=KERNEL_SUITE)
    tree = userland(PACKAGES, SUITE)
    return Host(host, host.bzimage, tree / "usr/bin/busybox", "/usr/bin/python3", tree)


ARCHITECTURE = Architecture(
    name="aarch64",
    qemu="qemu-system-aarch64",
    tools={
        "qemu-system-arm": "qemu-system-aarch64",
        **{package: program for package, program in TOOLS.items() if not package.startswith("qemu")},
    },
    # SVE, SME and architected pointer authentication cost much time in emulation.
    machine="-M virt,virtualization=on,gic-version=3 -accel tcg,tb-size=512,thread=multi "
    "-cpu max,sve=off,sme=off,pauth-impdef=on",
    cmdline="console=ttyAMA0 panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on loglevel=4",
    modules=("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),
    find_host=find_host,
)
