"""What the steps that boot Linux share: Debian's kernel, and an initramfs whose init runs a shell script.

A kernel and an initramfs of your own do as well: `python step5_linux.py KERNEL INITRAMFS`.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
import guest as files

OWN = sys.argv[1:3]
INIT = "" if OWN else "rdinit=/vmm-init vmm.end=exec"  # ours loads the modules, then runs the script


def guest(stack: ExitStack, script: str, *, modules: Sequence[str] = files.MODULES) -> tuple[Path, Path]:
    """Return (kernel, initramfs): those on the command line, or Debian's kernel and one for `script`."""
    if OWN:
        kernel, initramfs = map(Path, OWN)
        return kernel, initramfs
    debian = files.debian_guest()
    initramfs = Path(stack.enter_context(TemporaryDirectory()), "initramfs")
    initramfs.write_bytes(files.initramfs(debian, modules=modules, image=files.busybox_image(script)))
    return debian.image, initramfs


def disk(stack: ExitStack) -> Path:
    """Return a new ext4 image of 16 MiB."""
    path = Path(stack.enter_context(TemporaryDirectory()), "disk.raw")
    files.root_disk(path, 16 << 20)
    return path


def read(image: Path, name: str) -> str:
    """Return a text file out of an ext4 image."""
    return files.read_from_disk(image, name).decode()
