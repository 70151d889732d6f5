"""Programs of another architecture: Debian packages with all they depend on, unpacked into one folder."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from . import _suite
from ._apt import RECHECK_AFTER, checked, refresh
from ._cache import cache_dir, locked, publish, say, write_atomically
from ._errors import SetupError

MERGED = ("bin", "lib", "sbin")  # folders that Debian's packages of before trixie hold beside those in /usr
_INST = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)


def userland(packages: Sequence[str], suite: str) -> Path:
    """Return the root of a tree with these packages and their dependencies; recommended ones are left out.

    Nothing is installed and no script of a package runs. /bin, /lib and /sbin are links into /usr. The tree
    is used for a week before apt is asked for newer packages, and for ever where that fails.

    Args:
        packages: names.
        suite: of the Debian archive, with the architecture, e.g. ``"bookworm:arm64"``.

    Raises:
        SetupError: It is neither in the cache nor to be had; ``cure`` says what to run, if anything.
    """
    wanted = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:8]
    note = cache_dir() / "debian" / f"userland-{wanted}@{suite}.json"
    if fresh := _fresh(note):
        return fresh
    with locked("debian"):
        if fresh := _fresh(note):
            return fresh
        known = _read(note)
        try:
            tree = _make(packages, suite)
        except SetupError as err:
            if known is None:
                raise
            say(f"{err}; using the userland in the cache")
            tree = Path(known["Tree"])
        record = {"Tree": str(tree), "Checked": str(time.time())}
        note.parent.mkdir(exist_ok=True)
        write_atomically(note, json.dumps(record, indent=1).encode())
        return tree


def _fresh(note: Path) -> Path | None:
    known = _read(note)
    new = known is not None and time.time() - float(known["Checked"]) < RECHECK_AFTER
    return Path(known["Tree"]) if known is not None and new else None


def _read(note: Path) -> dict[str, str] | None:
    try:
        record: dict[str, str] = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    return record if Path(record.get("Tree", "/nonexistent")).is_dir() else None


def _make(packages: Sequence[str], suite: str) -> Path:
    """Resolve, download and unpack."""
    options = _suite.options(suite)
    if _suite.is_stale(suite):
        refresh(suite)
    argv = ["apt-get", "-q", *options, "--no-install-recommends", "-s", "install", *packages]
    exact = sorted(f"{name}={version}" for name, version in _INST.findall(checked(argv)))
    if not exact:
        raise SetupError(f"Debian {suite}: apt-get names no package for {' '.join(packages)}")
    digest = hashlib.sha256(" ".join(exact).encode()).hexdigest()[:16]
    tree = cache_dir() / "debian" / f"userland-{suite.replace(':', '-')}-{digest}"
    if not tree.is_dir():
        with publish(tree) as scratch:
            _fill(scratch, exact, options, suite)
    return tree


def _fill(tree: Path, exact: Sequence[str], options: Sequence[str], suite: str) -> None:
    say(f"downloading {len(exact)} packages of Debian {suite}")
    start = time.monotonic()
    debs = tree / ".debs"
    debs.mkdir()
    checked(["apt-get", "-q", *options, "download", *exact], cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        checked(["dpkg-deb", "-x", str(deb), str(tree)])
    shutil.rmtree(debs)
    for name in MERGED:
        _merge(tree, name)
    say(f"unpacked the userland of {suite} after {time.monotonic() - start:.0f} s")


def _merge(tree: Path, name: str) -> None:
    """Move a folder's contents below /usr and leave a link, as the packages expect of an installed system."""
    folder = tree / name
    if folder.is_dir() and not folder.is_symlink():
        shutil.copytree(
            folder, tree / "usr" / name, symlinks=True, dirs_exist_ok=True, copy_function=os.rename
        )
        shutil.rmtree(folder)
    if not folder.is_symlink():
        folder.symlink_to(f"usr/{name}")
