"""The user's cache folder: one lock, progress lines, atomic publication of whole directories."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of everything fetched, created if needed.

    ``$VMM_TESTHOST_CACHE`` wins, then ``$XDG_CACHE_HOME/vmm-testhost``, then ``~/.cache/vmm-testhost``.
    """
    if named := os.environ.get("VMM_TESTHOST_CACHE"):
        path = Path(named).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        path = (Path(base) if base else Path.home() / ".cache") / "vmm-testhost"
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text: str) -> None:
    """Show one progress line on stderr."""
    sys.stderr.write(f"vmm-testhost: {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name; other processes (and other calls) wait, and say so.

    The lock dies with the process, so a killed run never blocks the next one.
    """
    with (cache_dir() / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process prepares {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Give a scratch directory that becomes ``target`` in one rename when the block succeeds.

    On any failure the scratch directory is removed and ``target`` never appears.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def write_atomically(target: Path, data: bytes) -> None:
    """Replace a file in one rename, so that a reader sees the old or the new contents, never a part."""
    fd, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        Path(name).rename(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
