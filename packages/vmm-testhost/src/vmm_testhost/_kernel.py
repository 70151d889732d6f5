"""Debian kernels in the cache: their image, modules in dependency order, and the vmlinux inside."""

import dataclasses
import importlib
import lzma
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ._apt import RECHECK_AFTER, fetch_package, find_tool, is_cached, resolve
from ._cache import cache_dir, locked, publish, write_atomically
from ._errors import KernelImageError, SetupError

GUEST_KERNEL = "linux-image-6.12-cloud-amd64"
"""The Debian package that `kernel` takes by default: small; virtio-blk and virtio-mmio are modules."""
HOST_KERNELS = ("linux-image-6.12-amd64", "linux-image-amd64")  # those with 9p, best first
IMAGE_PREFIX = "linux-image-"
USR_IMAGE = "usr/lib/modules/*/vmlinuz"
LATER_SUITES = ("trixie-backports", "forky", "sid")  # where to look for a kernel newer than 6.17, in turn
LZ4_BLOCK = 8 << 20


@dataclasses.dataclass(frozen=True)
class DebianKernel:
    """One unpacked Debian kernel package.

    Attributes:
        package: the package the files come from.
        version: what ``uname -r`` says in it, e.g. ``6.12.117+deb12-cloud-amd64``.
        bzimage: ``boot/vmlinuz-VERSION``, or since Debian 14 ``usr/lib/modules/VERSION/vmlinuz``; on arm64 it
            is an ``Image``.
        config: ``boot/config-VERSION``, or ``usr/lib/modules/VERSION/config``.
        modules: ``lib/modules/VERSION`` with ``modules.dep``, in ``/`` or ``/usr``.
        tree: the package's root; that of a kernel split into several packages holds them all.
    """

    package: str
    version: str
    bzimage: Path
    config: Path
    modules: Path
    tree: Path

    def vmlinux(self) -> Path:
        """Return the uncompressed ELF image, extracted once into the cache.

        Raises:
            KernelImageError: The bzImage is damaged or of a compression nothing here can undo.
        """
        target = self.tree / "boot" / f"vmlinux-{self.version}"
        if not target.exists():
            with locked("debian"):
                if not target.exists():
                    target.parent.mkdir(exist_ok=True)
                    write_atomically(target, extract_vmlinux(self.bzimage.read_bytes()))
        return target

    def module_files(self, names: Sequence[str]) -> list[Path]:
        """Return module files in an order in which each may be inserted.

        Args:
            names: module names; ``-`` and ``_`` are the same. Built-in ones are left out.

        Returns:
            Absolute paths, dependencies before dependents, each once; possibly compressed.

        Raises:
            KernelImageError: A name is neither a module nor built in.
        """
        order = order_modules((self.modules / "modules.dep").read_text(), names, self._builtin())
        return [self.modules / path for path in order]

    def _builtin(self) -> set[str]:
        listed = (self.modules / "modules.builtin").read_text().split()
        return {module_name(path) for path in listed}


def kernel(
    metapackage: str = GUEST_KERNEL, *, suite: str | None = None, recheck_after: float = RECHECK_AFTER
) -> DebianKernel:
    """Return a Debian kernel, fetched into the cache when it is not there.

    Args:
        metapackage: a package that depends on a kernel image, or an image package itself.
        suite: a suite that this machine's apt does not follow; as in :func:`fetch_package`.
        recheck_after: seconds for which the cached one is used without asking apt for a newer one.

    Raises:
        ValueError: A name is no package's or no suite's.
        SetupError: As :func:`fetch_package`, or ``depmod`` (package kmod) is missing.
        KernelImageError: The package holds no kernel.
    """
    record = resolve(metapackage, suite=suite, recheck_after=recheck_after)
    points_on = IMAGE_PREFIX in record.get("Depends", "")
    if not _images(Path(record["Tree"])) and (points_on or not _parts(record)):
        package = image_dependency(record.get("Depends", ""), metapackage)
        # Its name holds its version: never asked for again.
        record = resolve(package, suite=suite, recheck_after=float("inf"))
    if not _images(Path(record["Tree"])) and (parts := _parts(record)):
        record = {**record, "Tree": str(_joined(record, parts, suite))}
    return _found(record["Package"], Path(record["Tree"]))


def kernel_image(metapackage: str, *, suite: str | None = None) -> Path:
    """Return the image of a Debian kernel alone, of any architecture; its modules are not fetched.

    Args:
        metapackage: a package that depends on a kernel image, or an image package itself.
        suite: as in :func:`fetch_package`, e.g. ``"trixie:arm64"``.

    Raises:
        ValueError: A name is no package's or no suite's.
        SetupError: As :func:`fetch_package`.
        KernelImageError: The package leads to no kernel.
    """
    record, recheck_after = resolve(metapackage, suite=suite), float("inf")
    while not (found := _images(Path(record["Tree"]))):
        binary = [part for part in _parts(record) if part.startswith("linux-binary-")]
        package = binary[0] if binary else image_dependency(record.get("Depends", ""), metapackage)
        if package == record["Package"]:
            raise KernelImageError(f"package {package}: no kernel image in it")
        record = resolve(package, suite=suite, recheck_after=recheck_after)
    return found[0]


def later_kernel(metapackage: str = "linux-image-cloud-amd64") -> DebianKernel:
    """Return that kernel from the first of LATER_SUITES in the cache, else from the first to be had.

    Raises:
        SetupError: None has it; the message says of each why.
    """
    reasons = []
    for suite in sorted(LATER_SUITES, key=lambda name: not is_cached(metapackage, name)):
        try:
            return kernel(metapackage, suite=suite)
        except SetupError as error:
            reasons.append(str(error))
    raise SetupError(f"no kernel of a later Debian is to be had: {'; '.join(reasons)}")


def _images(tree: Path) -> list[Path]:
    return [*tree.glob("boot/vmlinuz-*"), *tree.glob("lib/modules/*/vmlinuz"), *tree.glob(USR_IMAGE)]


def _found(package: str, tree: Path) -> DebianKernel:
    images = _images(tree)
    if len(images) != 1:
        raise KernelImageError(f"package {package}: {len(images)} kernel images in it, need 1")
    beside = images[0].name == "vmlinuz"
    version = images[0].parent.name if beside else images[0].name.removeprefix("vmlinuz-")
    roots = [root for root in (tree / "lib/modules", tree / "usr/lib/modules") if (root / version).is_dir()]
    if not roots:
        raise KernelImageError(f"package {package}: no lib/modules/{version} in {tree}")
    modules = roots[0] / version
    _depmod(modules, roots[0].parent.parent)
    config = modules / "config" if beside else tree / "boot" / f"config-{version}"
    return DebianKernel(package, version, images[0], config, modules, tree)


def _parts(record: dict[str, str]) -> list[str]:
    """Return the packages that a kernel is split into (Debian 14): image, modules, lists of them.

    They are known by the kernel's release in their names.
    """
    release = record["Package"].removeprefix(IMAGE_PREFIX)
    return re.findall(rf"\blinux-[a-z]+-{re.escape(release)}(?=[ ,(|]|$)", record.get("Depends", ""))


def _joined(record: dict[str, str], parts: Sequence[str], suite: str | None) -> Path:
    """Return one tree of these packages; files are shared with their own trees."""
    tree = cache_dir() / "debian" / f"{Path(record['Tree']).name}+parts"
    if not tree.is_dir():
        folders = [fetch_package(part, suite=suite, recheck_after=float("inf")) for part in parts]
        with locked("debian"):
            if not tree.is_dir():
                with publish(tree) as scratch:
                    for folder in folders:
                        shutil.copytree(
                            folder, scratch, symlinks=True, copy_function=os.link, dirs_exist_ok=True
                        )
    return tree


def host_kernel() -> DebianKernel:
    """Return the kernel the emulated host runs: the first of HOST_KERNELS in the cache, else to be had.

    Raises:
        SetupError: None is; the error is that of the first.
    """
    best, other = next((name for name in HOST_KERNELS if is_cached(name)), HOST_KERNELS[0]), HOST_KERNELS[1]
    try:
        return kernel(best)
    except SetupError as first:
        try:
            return kernel(other)
        except SetupError:
            raise first from None


def image_dependency(depends: str, metapackage: str) -> str:
    """Pick the kernel image out of a metapackage's Depends field."""
    for item in depends.split(","):
        name = item.split("|")[0].split("(")[0].strip()
        if name.startswith(IMAGE_PREFIX):
            return name
    raise KernelImageError(f"package {metapackage} depends on no {IMAGE_PREFIX}*: {depends!r}")


def _depmod(modules: Path, root: Path) -> None:
    if (modules / "modules.dep").exists():
        return
    if (depmod := find_tool("depmod")) is None:
        raise SetupError("depmod is missing", "sudo apt-get install kmod")
    with locked("debian"):
        if (modules / "modules.dep").exists():
            return
        argv = [depmod, "-b", str(root), modules.name]
        done = subprocess.run(argv, capture_output=True, check=False)
        if done.returncode != 0:
            (modules / "modules.dep").unlink(missing_ok=True)
            raise KernelImageError(f"{' '.join(argv)} failed: {done.stderr.decode(errors='replace').strip()}")


def module_name(path: str) -> str:
    """Return the name under which the kernel knows a module file: no folder, no suffix, ``_`` for ``-``."""
    return Path(path).name.split(".ko")[0].replace("-", "_")


def order_modules(dep_text: str, names: Sequence[str], builtin: set[str]) -> list[str]:
    """Order modules after ``modules.dep`` so that each comes after all it depends on.

    Each line of modules.dep lists all dependencies of a module, so that each must be inserted after those
    to its right (modules.dep(5)).
    """
    table: dict[str, list[str]] = {}
    for line in dep_text.splitlines():
        path, colon, needs = line.partition(":")
        if colon:
            table[module_name(path)] = [*reversed(needs.split()), path]
    order: dict[str, None] = {}
    for name in names:
        wanted = name.replace("-", "_")
        if wanted not in table and wanted not in builtin:
            raise KernelImageError(
                f"module {name}: neither in modules.dep ({len(table)} modules) nor built in"
            )
        order.update(dict.fromkeys(table.get(wanted, ())))
    return list(order)


def read_module(path: Path) -> bytes:
    """Return a module's ELF bytes, whatever it is compressed with."""
    data = path.read_bytes()
    return data if data.startswith(b"\x7fELF") else _decompress(data, str(path))


def extract_vmlinux(image: bytes) -> bytes:
    """Return the ELF image inside a bzImage.

    The payload's place is in the setup header (Documentation/arch/x86/boot.rst, fields payload_offset and
    payload_length, protocol 2.08); its last four bytes are the unpacked size, for every compression.

    Args:
        image: the whole bzImage.

    Raises:
        KernelImageError: Not a bzImage, cut short, or not to be decompressed here.
    """
    if len(image) < 0x268 or image[0x202:0x206] != b"HdrS":
        raise KernelImageError(f"bzImage of {len(image)} bytes: no HdrS at 0x202")
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < 0x208:
        raise KernelImageError(f"bzImage: boot protocol {protocol:#x}, need 0x208 for the payload fields")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    if start + length > len(image):
        raise KernelImageError(f"bzImage: payload ends at {start + length:#x}, the file at {len(image):#x}")
    elf = _decompress(image[start : start + length], "bzImage payload")
    if not elf.startswith(b"\x7fELF"):
        raise KernelImageError(f"bzImage payload: starts with {elf[:4].hex()}, not with an ELF header")
    (size,) = struct.unpack_from("<I", image, start + length - 4)
    if len(elf) != size:
        raise KernelImageError(
            f"bzImage payload: damaged: {len(elf)} bytes came out, its last word says {size}"
        )
    return elf


def _decompress(data: bytes, what: str) -> bytes:
    for magic, unpack in UNPACKERS.items():
        if data.startswith(magic):
            try:
                return unpack(data)
            except SetupError:
                raise
            except Exception as err:
                raise KernelImageError(f"{what}: damaged: {err}") from err
    raise KernelImageError(f"{what}: unknown compression, it starts with {data[:6].hex()}")


def _unpack_gzip(data: bytes) -> bytes:
    import zlib  # noqa: PLC0415 - only old kernels

    return zlib.decompressobj(wbits=31).decompress(data)


def _unpack_xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _unpack_zstd(data: bytes) -> bytes:
    try:
        library = importlib.import_module("zstandard")
    except ImportError:
        return _pipe(["zstd", "-dcq"], data, "zstd")
    unpacked = library.ZstdDecompressor().decompressobj().decompress(data)
    return bytes(unpacked)


def _unpack_lz4(data: bytes) -> bytes:
    """Undo lz4's legacy framing: after the magic, blocks of at most 8 MiB unpacked, each behind its size."""
    try:
        library = importlib.import_module("lz4.block")
    except ImportError:
        return _pipe(["lz4", "-dcq"], data, "lz4")
    blocks, place = [], 4
    while place + 8 <= len(data):  # the last four bytes are the unpacked size of the whole
        (size,) = struct.unpack_from("<I", data, place)
        if size > len(data) - place - 4:
            raise ValueError(f"lz4 block at {place:#x} claims {size} bytes, {len(data) - place - 4} are left")
        blocks.append(library.decompress(data[place + 4 : place + 4 + size], uncompressed_size=LZ4_BLOCK))
        place += 4 + size
    return b"".join(blocks)


def _pipe(argv: list[str], data: bytes, package: str) -> bytes:
    """Run a decompressor; complaints about the size word behind the stream are not errors."""
    if find_tool(argv[0]) is None:
        raise SetupError(f"{argv[0]} is missing", f"sudo apt-get install {package}")
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    if not done.stdout:
        raise ValueError(f"{argv[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


UNPACKERS = {
    b"\x28\xb5\x2f\xfd": _unpack_zstd,
    b"\xfd7zXZ\x00": _unpack_xz,
    b"\x1f\x8b\x08": _unpack_gzip,
    b"\x02\x21\x4c\x18": _unpack_lz4,
}
