"""Regenerate the committed cffi C of every package, or check that it is what would be generated.

Usage: python tools/gen_cffi.py [--check]

A function that core.cdef.h calls one that "keeps the GIL" does: cffi releases it around every call.
Also copies the public headers (vmm_access.h and vmm_atomic.h of vmm-memory, virtio_batch.h of
virtio-queue) to where they are shipped, and to the packages that commit a copy: isolated builds do not see
sibling folders.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent.parent / "packages"
COPIES = {
    "vmm-memory/csrc/vmm_access.h": (
        "vmm-memory/src/vmm_memory/include/vmm_access.h",
        "virtio-queue/csrc/vmm_access.h",
        "virtio-devices/csrc/vmm_access.h",
    ),
    "vmm-memory/csrc/vmm_atomic.h": ("vmm-memory/src/vmm_memory/include/vmm_atomic.h",),
    "virtio-queue/csrc/virtio_batch.h": ("virtio-devices/csrc/virtio_batch.h",),
}


KEEPS_GIL = re.compile(r"^\w+ \**(\w+)\([^;]*\); /\* keeps the GIL \*/$", re.M)
RELEASE = (
    "  Py_BEGIN_ALLOW_THREADS\n",
    "  _cffi_restore_errno();\n",
    "  _cffi_save_errno();\n",
    "  Py_END_ALLOW_THREADS\n",
)


def keep_gil(text: str, name: str) -> str:
    """Let a function that ends at once, and has no errno, be called with the interpreter's lock held."""
    start = text.index(f"\n_cffi_f_{name}(")
    end = text.index("#else", start)
    body = text[start:end]
    for line in RELEASE:
        if body.count(line) != 1:
            raise SystemExit(f"gen_cffi: cffi writes calls in another way now, without {line.strip()}")
        body = body.replace(line, "")
    return text[:start] + body + text[end:]


def generate(package: Path, output: Path) -> None:
    module = f"{package.name.replace('-', '_')}._core"
    command = [sys.executable, "-m", "cffi.gen_src", "read-sources", module]
    subprocess.run(
        [*command, "csrc/core.cdef.h", "csrc/core.csrc.c", str(output)],
        cwd=package,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    text = output.read_text()
    for name in KEEPS_GIL.findall((package / "csrc/core.cdef.h").read_text()):
        text = keep_gil(text, name)
    output.write_text(text)


def pairs(scratch: Path) -> list[tuple[bytes, Path]]:
    """What each generated or copied file should hold, beside where it stands."""
    wanted = []
    for cdef in sorted(PACKAGES.glob("*/csrc/core.cdef.h")):
        package = cdef.parent.parent
        fresh = scratch / f"{package.name}.c"
        generate(package, fresh)
        wanted.append((fresh.read_bytes(), package / "csrc/_core_cffi.c"))
    for source, copies in COPIES.items():
        text = (PACKAGES / source).read_bytes()
        wanted += [(text, PACKAGES / copy) for copy in copies]
    return wanted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when a file is out of date"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        stale = [
            (text, path)
            for text, path in pairs(Path(scratch))
            if not path.exists() or path.read_bytes() != text
        ]
    for text, path in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(PACKAGES)}")
        if not check:
            path.write_bytes(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
