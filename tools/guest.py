"""Guests for `make boot`, the tests and the benchmarks: a kernel, an initramfs of ours, a disk.

Nothing here is shipped. The kernel is a stock one (Debian's by default); the initramfs holds one
static C program (guest_init.c) and the modules it needs; the disk is made by mke2fs. Guests have the
architecture of the machine this runs on, unless one is named.
"""

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
from vmm_testhost import KernelImageError
from vmm_testhost.cpio import Archive
from vmm_testhost.debian import DebianKernel, kernel, later_kernel, read_module

HERE = Path(__file__).resolve().parent
MODULES = ("crc32c_generic", "virtio_mmio", "virtio_blk", "virtio_rng", "ext4")
INIT = "/vmm-init"
_PACKAGES = {"gcc": "gcc", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}
_MOUNTS = {"devtmpfs": "/dev", "proc": "/proc", "sysfs": "/sys"}
ARCH = os.uname().machine
CONSOLE = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}.get(ARCH, "")
DEFAULT = "6.12-cloud"
LATER = "later-cloud"  # newer than 6.17, from a suite that the machine's apt does not follow
X86_KERNELS = {
    "6.1-generic": "linux-image-amd64",
    "6.1-cloud": "linux-image-cloud-amd64",
    "6.12-generic": "linux-image-6.12-amd64",
    DEFAULT: "linux-image-6.12-cloud-amd64",
    LATER: "linux-image-cloud-amd64",
}
ARM64_KERNELS = {  # package and suite
    DEFAULT: ("linux-image-cloud-arm64", "trixie:arm64"),
    "6.12-generic": ("linux-image-arm64", "trixie:arm64"),  # the emulated host's own
}
KERNELS = tuple(ARM64_KERNELS if ARCH == "aarch64" else X86_KERNELS)


class GuestError(Exception):
    """A guest cannot be prepared; the message says why and how to mend it."""


@attrs.frozen
class Guest:
    """A kernel image, its version, and where its modules are (None: all it needs is built in)."""

    image: Path
    version: str
    debian: DebianKernel | None


def cache() -> Path:
    """Return the folder of what is made here."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache") / "vmm-guests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def debian_guest(*, elf: bool = True) -> Guest:
    """Return the kernel that most tests take, by default in the form that is the fastest to boot."""
    return known_guest(DEFAULT, elf=elf)


def known_guest(name: str, *, elf: bool = True) -> Guest:
    """Return one of KERNELS: on x86 its ELF image or its bzImage."""
    if ARCH == "aarch64":
        return arm64_guest(name)
    found = later_kernel(X86_KERNELS[name]) if name == LATER else kernel(X86_KERNELS[name])
    return Guest(found.vmlinux() if elf else found.bzimage, found.version, found)


def arm64_guest(name: str = DEFAULT) -> Guest:
    """Return one of ARM64_KERNELS, an uncompressed Image."""
    package, suite = ARM64_KERNELS[name]
    found = kernel(package, suite=suite)
    return Guest(found.bzimage, found.version, found)


def given_guest(image: Path) -> Guest:
    """Return the caller's kernel, with modules found beside it, on this host, or in Debian's package."""
    version = kernel_version(image)
    for root in (image.resolve().parent.parent, Path("/usr"), Path("/")):
        modules = root / "lib/modules" / version
        if modules.is_dir():
            return Guest(image, version, _with_dependencies(image, version, modules))
    try:
        return Guest(image, version, kernel(f"linux-image-{version}"))
    except Exception as error:  # noqa: BLE001 - any reason: the kernel may need no modules at all
        print(f"boot: no modules for {version} found ({error}); taking all drivers to be built in")
        return Guest(image, version, None)


def _with_dependencies(image: Path, version: str, modules: Path) -> DebianKernel:
    if not (modules / "modules.dep").exists():
        modules = _indexed(modules, version)
    return DebianKernel(
        "", version, image, image.with_name(f"config-{version}"), modules, image.parent.parent
    )


def _indexed(modules: Path, version: str) -> Path:
    """Return a copy of a module tree, in links, with the index that a package's own lacks."""
    source = modules.resolve()
    # By its place: another tree may hold the same version.
    root = cache() / f"modules-{version}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            made = Path(scratch, "root")
            shutil.copytree(source, made / "lib/modules" / version, copy_function=os.symlink)
            try:
                subprocess.run(["depmod", "-b", str(made), version], check=True, env=with_sbin())
            except FileNotFoundError:
                raise GuestError("depmod is missing: apt-get install kmod") from None
            try:
                made.rename(root)
            except OSError:
                if not root.exists():  # else another `make boot` was faster
                    raise
    return root / "lib/modules" / version


def prepare() -> list[Guest]:
    """Fetch and build all that the tests' guests need, so that they run where no network is.

    Returns:
        The kernels, as bzImages.
    """
    init_program()
    for name in KERNELS:
        known_guest(name)  # unpacks the ELF image as well
    return [known_guest(name, elf=False) for name in KERNELS]


def prepare_arm64() -> None:
    """Fetch and build what the tests' guests need in an arm64 host, with a cross compiler."""
    init_program("aarch64")
    for name in ARM64_KERNELS:
        arm64_guest(name)


def _given(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GuestError(f"{name}={path}: {error.strerror}; give the path of a file") from None


def kernel_version(image: Path) -> str:
    """Return what `uname -r` will say: from the bzImage header, or the banner of an ELF image."""
    data = _given("KERNEL", image)
    if data[0x202:0x206] == b"HdrS":
        start = struct.unpack_from("<H", data, 0x20E)[0] + 0x200
        text = data[start : start + 256]
    else:
        start = data.find(b"Linux version ")
        if start < 0:
            raise GuestError(f"KERNEL={image}: neither a bzImage nor an ELF image of Linux")
        text = data[start + len(b"Linux version ") :][:256]
    return text.split(b" ")[0].split(b"\0")[0].decode("ascii", "replace")


def with_sbin() -> dict[str, str]:
    """Return the environment with the administrator's folders in PATH."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def init_program(arch: str = ARCH) -> bytes:
    """Return guest_init.c compiled to a static program, cached by its source."""
    source = HERE / "guest_init.c"
    target = cache() / f"init-{arch}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        scratch = Path(tempfile.mkdtemp(dir=cache()))
        compiler = "gcc" if arch == ARCH else f"{arch}-linux-gnu-gcc"
        command = [
            compiler,
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Os",
            "-static",
            "-s",
            "-o",
            str(scratch / "init"),
            str(source),
        ]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise GuestError(f"{compiler} is missing: apt-get install {_PACKAGES[compiler]}") from None
        (scratch / "init").rename(target)
        scratch.rmdir()
    return target.read_bytes()


def module_files(guest: Guest, names: Iterable[str]) -> list[Path]:
    """Return the files of those `names` that are modules of this kernel, in an order to insert them."""
    if guest.debian is None:
        return []
    files: dict[Path, None] = {}
    for name in names:
        try:
            files.update(dict.fromkeys(guest.debian.module_files([name])))
        except KernelImageError:
            continue  # neither a module nor built in: this kernel does without
    return list(files)


def busybox_image(script: str, programs: Sequence[str] = ()) -> bytes:
    """Return an initramfs of busybox that runs `script` as its /init: all applets, /proc, /sys, /dev.

    To be laid below our own init, which loads the modules first: `vmm.end=exec`. `programs` of this machine
    come along with their libraries.
    """
    archive = Archive()
    for path, data in _busybox(script).items():
        archive.file(path, data, 0o755)
    for path in dict.fromkeys(path for name in programs for path in _with_libraries(name)):
        archive.file(path, Path(path).read_bytes(), 0o755)
    return archive.build()


def _busybox(script: str) -> dict[str, bytes]:
    """Return the programs that run a script as /init."""
    program = shutil.which("busybox", path=with_sbin()["PATH"])
    if program is None:
        raise GuestError("busybox is missing: apt-get install busybox-static")
    prologue = ["#!/bin/busybox sh", "/bin/busybox --install -s /bin"]
    prologue += ["mkdir -p /dev /proc /sys"]
    prologue += [f"mount -t {kind} {kind} {where}" for kind, where in _MOUNTS.items()]
    # `poweroff -f` does not wait for the serial port; stty does (TCSADRAIN).
    prologue.append(f'poweroff() {{ stty -F /dev/{CONSOLE} -echo; /bin/poweroff "$@"; }}')
    init = "\n".join([*prologue, script, ""])
    return {"/bin/busybox": Path(program).read_bytes(), "/init": init.encode()}


def _with_libraries(name: str) -> list[str]:
    program = shutil.which(name, path=with_sbin()["PATH"])
    if program is None:
        raise GuestError(f"{name} is missing: apt-get install util-linux")
    # As ldd asks, which is a script that knows the loaders of the architecture it came with.
    asks = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    listed = subprocess.run([program], check=True, capture_output=True, text=True, env=asks).stdout
    # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader alone.
    words = [word for line in listed.splitlines() for word in line.split()]
    return [program, *(word for word in words if word.startswith("/"))]


def initramfs(
    guest: Guest, *, modules: Sequence[str] = MODULES, base: Path | None = None, image: bytes = b""
) -> bytes:
    """Return an initramfs with our init and modules, and after it `image`, or the caller's file `base`.

    Ours is first: it is not compressed, and the kernel looks for a further archive only behind such a one
    whatever that is compressed with.
    """
    archive = Archive()
    archive.file(INIT, init_program(), 0o755)
    archive.device("/dev/console", "c", 5, 1)
    for position, path in enumerate(module_files(guest, modules)):
        name = path.name.split(".ko")[0]
        archive.file(f"/vmm-modules/{position:02}-{name}.ko", read_module(path))
    below = _given("INITRD", base) if base else image
    ours = archive.build()
    return ours + bytes(-len(ours) % 512) + below


def root_disk(path: Path, size: int = 64 << 20, *, bootable: bool = False, script: str | None = None) -> None:
    """Make an ext4 image of `size` bytes at `path`, as any user.

    It holds one file to read; if `bootable`, also what `root=` needs: our init, and folders to mount on; with
    a `script`, that too, which busybox runs after our init (`vmm.end=exec`).
    """
    programs = {}
    if bootable or script is not None:
        programs = {"/sbin/init": init_program(), **(_busybox(script) if script is not None else {})}
    with tempfile.TemporaryDirectory() as tree:
        Path(tree, "README").write_text("Made by the VMM's `make boot`.\n")
        for folder in ("bin", "dev", "proc", "sys", "sbin") if programs else ():
            Path(tree, folder).mkdir()
        for name, data in programs.items():
            Path(tree + name).write_bytes(data)
            Path(tree + name).chmod(0o755)
        path.unlink(missing_ok=True)
        path.touch()
        os.truncate(path, size)
        command = ["mke2fs", "-q", "-t", "ext4", "-d", tree, str(path)]
        try:
            subprocess.run(command, check=True, env=with_sbin())
        except FileNotFoundError:
            raise GuestError("mke2fs is missing: apt-get install e2fsprogs") from None


def read_from_disk(image: Path, name: str) -> bytes:
    """Return a file out of an unmounted ext4 image."""
    command = ["debugfs", "-R", f"cat {name}", str(image)]
    try:
        return subprocess.run(command, check=True, env=with_sbin(), capture_output=True).stdout
    except FileNotFoundError:
        raise GuestError("debugfs is missing: apt-get install e2fsprogs") from None
