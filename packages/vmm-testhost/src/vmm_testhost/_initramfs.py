"""The emulated host's initramfs: a cached archive for all runs, and a tiny one for each run."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._apt import fetch_package
from ._cache import cache_dir, locked, write_atomically
from ._errors import KernelImageError
from ._kernel import DebianKernel, module_name, read_module
from .cpio import Archive

APPLETS = (
    *("cat", "chmod", "cp", "echo", "hostname", "insmod", "ip", "ln"),
    *("mkdir", "mknod", "mount", "sh", "sleep", "switch_root"),
)
HERE = Path(__file__).parent


def find_busybox() -> Path:
    """Return a static busybox: the installed one if it is static, else Debian's package in the cache."""
    for candidate in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if candidate.is_file() and b"/ld-linux" not in candidate.read_bytes()[:4096]:
            return candidate
    tree = fetch_package("busybox-static")
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (tree / place).is_file():
            return tree / place
    raise KernelImageError(f"package busybox-static: no bin/busybox in {tree}")


def base_archive(kernel: DebianKernel, busybox: Path, modules: Sequence[str]) -> Path:
    """Return the archive all runs share: busybox, modules, init and agent; made once per content."""
    init = (HERE / "_init.sh").read_text().replace("@VERSION@", kernel.version).encode()
    agent = (HERE / "_agent.py").read_bytes()
    stamp = repr(
        (kernel.version, APPLETS, modules, busybox.stat().st_size, busybox.stat().st_mtime_ns)
    ).encode()
    digest = hashlib.sha256(b"\0".join((stamp, init, agent))).hexdigest()[:16]
    folder = cache_dir() / "initramfs"
    target = folder / f"{kernel.version}-{digest}.cpio"
    if not target.exists():
        with locked("initramfs"):
            folder.mkdir(exist_ok=True)
            write_atomically(target, _build(kernel.module_files(modules), busybox, init, agent))
    return target


def _build(files: Sequence[Path], busybox: Path, init: bytes, agent: bytes) -> bytes:
    archive = Archive()
    for name in ("bin", "proc", "sys", "dev", "lower", "userland", "rw", "new", "modules"):
        archive.directory(name)
    archive.device("dev/console", "c", 5, 1)  # the kernel opens it for init before init mounts anything
    archive.device("dev/null", "c", 1, 3, 0o666)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in APPLETS:
        archive.symlink(f"bin/{applet}", "busybox")
    names = [f"{module_name(str(path))}.ko" for path in files]
    for name, path in zip(names, files, strict=True):
        archive.file(f"modules/{name}", read_module(path))
    archive.file("modules/order", "\n".join(names).encode())
    archive.file("init", init, 0o755)
    archive.file("agent.py", agent)
    return archive.build()


def run_archive(shell: str, description: Mapping[str, object]) -> bytes:
    """Return the archive of one run: shell variables and mounts for init, a description for the agent."""
    archive = Archive()
    archive.file("run.sh", shell.encode())
    # Surrogates (bytes in an argument that are no UTF-8) survive as escapes of !a.
    lines = [f"{key} = {value!a}\n" for key, value in sorted(description.items())]
    archive.file("run.py", "".join(lines).encode())
    return archive.build()


def shell_setup(
    python: str, modules: Path, binds: Sequence[tuple[str, str, Path]], *, userland: bool = False
) -> str:
    """Return what init sources: where Python and the modules are, and a function that attaches the shares.

    Args:
        python: absolute path of the interpreter for the agent.
        modules: the unpacked ``lib/modules/VERSION``.
        binds: mount tag, path inside that share ("" for its root), path to bind it over.
        userland: a share of that name lies over this machine's files.
    """
    lines = [f"PYTHON={shlex.quote(python)}", f"MODULES={shlex.quote(str(modules))}"]
    lines += [f"USERLAND={'yes' if userland else ''}", "attach() {", ":"]
    lines.append('cp /run.py "$H/run.py"')
    for tag in dict.fromkeys(tag for tag, _, _ in binds):
        lines.append(f'mkdir -p "$H/{tag}"')
        # cache=mmap because cache=none has no shared writable mappings; sync because it would cache writes:
        # so the outer side sees each write at once, and a crash of the host loses none.
        lines.append(
            f'mount -t 9p -o "$NINE,cache=mmap,sync" {tag} "$H/{tag}" || fail "mount of share {tag}"'
        )
    for tag, inner, path in binds:
        source = f'"$H/{tag}"{shlex.quote("/" + inner) if inner else ""}'
        target = f"/new{shlex.quote(str(path))}"
        lines.append(f"mount --bind {source} {target} || fail bind {shlex.quote(str(path))}")
    lines.append("}")
    return "\n".join(lines) + "\n"
