"""Debian packages through apt: resolved, downloaded, checked by apt, unpacked into the cache."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from . import _suite
from ._cache import cache_dir, locked, publish, say, write_atomically
from ._errors import SetupError

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # a plain user's PATH lacks them; depmod lives there
TOOLS = {"qemu-system-x86": "qemu-system-x86_64", "kmod": "depmod", "xz-utils": "xz", "zstd": "zstd"}
RECHECK_AFTER = 7 * 24 * 3600.0  # seconds a resolved version is used without asking apt again

Record = dict[str, str]  # fields of a package: Package, Version, Architecture, Size, Depends


def find_tool(program: str) -> str | None:
    """Return the path of a program, looking in the sbin folders too."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def missing_tools(tools: Mapping[str, str] = TOOLS) -> list[str]:
    """Return the Debian packages of the tools (package: program) that are not installed, sorted."""
    return sorted(package for package, program in tools.items() if find_tool(program) is None)


def ensure_tools(tools: Mapping[str, str] = TOOLS) -> None:
    """Install the missing tools through apt when root.

    Args:
        tools: package and program of each.

    Raises:
        SetupError: Not root, or apt failed; ``cure`` is the one command to run.
    """
    if not (missing := missing_tools(tools)):
        return
    cure = f"sudo apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        raise SetupError(f"the emulated host needs the Debian packages {' '.join(missing)}", cure)
    with locked("apt"):
        if not (missing := missing_tools(tools)):
            return
        say(f"installing {' '.join(missing)} (once)")
        for attempt in range(2):
            done = _apt(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])
            if done.returncode == 0:
                break
            if attempt == 0:
                refresh()
        if missing := missing_tools(tools):
            raise SetupError(
                f"apt-get could not install {' '.join(missing)}: {_last_line(done.stderr)}", cure
            )


def fetch_package(name: str, *, suite: str | None = None, recheck_after: float = RECHECK_AFTER) -> Path:
    """Return the unpacked tree of a Debian package, downloading it when the cache lacks it.

    The package is never installed. Its checksum is checked by apt against the signed lists; when apt or
    the network is missing, the version in the cache is used.

    Args:
        name: package name as apt knows it, e.g. ``"linux-image-6.12-cloud-amd64"``.
        suite: a suite that this machine's apt does not follow, e.g. ``"forky"``, taken from the same mirror
            with a configuration of its own; ``"forky:riscv64"`` for the packages of another architecture;
            None for what the machine's apt knows.
        recheck_after: seconds for which a cached version is used without asking apt for a newer one.

    Returns:
        The directory that ``dpkg-deb -x`` filled; do not write to it.

    Raises:
        ValueError: The name is not a package name, or the suite not a suite's.
        SetupError: It is neither in the cache nor to be had; ``cure`` says what to run, if anything.
    """
    return Path(resolve(name, suite=suite, recheck_after=recheck_after)["Tree"])


def resolve(name: str, *, suite: str | None = None, recheck_after: float = RECHECK_AFTER) -> Record:
    """Return a package's fields with ``Tree`` added, fetching it as :func:`fetch_package` does."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
        raise ValueError(f"{name!r} is not a Debian package name")
    if suite is not None:
        _suite.check_suite(suite)
    if fresh := _fresh(name, suite, recheck_after):
        return fresh
    with locked("debian"):
        if fresh := _fresh(name, suite, recheck_after):
            return fresh
        known = _cached(name, suite)
        try:
            record = _fetch(name, suite)
        except SetupError as err:
            if known is None:
                raise
            say(f"{err}; using {name} {known['Version']} from the cache")
            record = known
        record["Checked"] = str(time.time())
        write_atomically(_note(name, suite), json.dumps(record, indent=1).encode())
        return record


def is_cached(name: str, suite: str | None = None) -> bool:
    """Tell whether a package can be had without asking apt."""
    return _fresh(name, suite, RECHECK_AFTER) is not None


def _fresh(name: str, suite: str | None, recheck_after: float) -> Record | None:
    known = _cached(name, suite)
    return known if known is not None and time.time() - float(known["Checked"]) < recheck_after else None


def _note(name: str, suite: str | None) -> Path:
    folder = cache_dir() / "debian"
    folder.mkdir(exist_ok=True)
    return folder / (f"{name}.json" if suite is None else f"{name}@{suite}.json")


def _cached(name: str, suite: str | None) -> Record | None:
    try:
        record = json.loads(_note(name, suite).read_bytes())
    except (OSError, ValueError):
        return None
    return record if Path(record.get("Tree", "/nonexistent")).is_dir() else None


def _fetch(name: str, suite: str | None) -> Record:
    """Resolve, download and unpack; refresh apt's lists once when they do not lead to the package."""
    refreshed = suite is not None and _suite.is_stale(suite) and refresh(suite)
    record = _candidate(name, suite)
    if record is None and not refreshed:
        refreshed = refresh(suite)
        record = _candidate(name, suite)
    if record is None:
        if suite is not None:
            raise SetupError(f"Debian {suite} has no package {name}")
        raise SetupError(f"apt knows no package {name}", None if refreshed else "sudo apt-get update")
    try:
        return _unpacked(record, suite)
    except SetupError:
        if refreshed or not refresh(suite) or (record := _candidate(name, suite)) is None:
            raise
        return _unpacked(record, suite)


def _options(suite: str | None) -> list[str]:
    return [] if suite is None else _suite.options(suite)


def _candidate(name: str, suite: str | None) -> Record | None:
    if find_tool("apt-cache") is None:
        return None
    shown = _apt(["apt-cache", *_options(suite), "show", "--no-all-versions", name])
    record = parse_fields(shown.stdout.decode(errors="replace"))
    return record if record.get("Package") == name and "Version" in record else None


def parse_fields(text: str) -> Record:
    """Read the fields of one control paragraph; continuation lines are left out."""
    fields: Record = {}
    for line in text.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields[key] = value.strip()
    return fields


def _unpacked(record: Record, suite: str | None) -> Record:
    version = re.sub(r"[^A-Za-z0-9+.~-]", "_", record["Version"])  # an epoch's colon
    tree = cache_dir() / "debian" / f"{record['Package']}_{version}_{record['Architecture']}"
    wanted = ("Package", "Version", "Architecture", "Size", "Depends")
    kept = {field: record[field] for field in wanted if field in record}
    if not tree.is_dir():
        with publish(tree) as scratch:
            _download(record, scratch, suite)
    return {**kept, "Tree": str(tree)}


def _download(record: Record, scratch: Path, suite: str | None) -> None:
    exact = f"{record['Package']}={record['Version']}"
    say(f"downloading {record['Package']} {record['Version']} ({int(record.get('Size', 0)) / 1e6:.1f} MB)")
    start = time.monotonic()
    holder = scratch / ".deb"
    holder.mkdir()
    argv = ["apt-get", "-q", *_options(suite), "-o", "APT::Sandbox::User=root", "download", exact]
    done = _apt(argv, cwd=holder)
    files = list(holder.glob("*.deb"))
    if done.returncode != 0 or len(files) != 1:
        raise SetupError(f"apt-get download {exact} failed: {_last_line(done.stderr)}", "sudo apt-get update")
    unpacked = _apt(["dpkg-deb", "-x", str(files[0]), str(scratch)])
    if unpacked.returncode != 0:
        raise SetupError(f"dpkg-deb -x {files[0].name} failed: {_last_line(unpacked.stderr)}")
    shutil.rmtree(holder)
    say(f"unpacked {record['Package']} after {time.monotonic() - start:.0f} s")


def refresh(suite: str | None = None) -> bool:
    """Refresh apt's lists when we may; tell whether that was done."""
    if suite is not None:
        _suite.update(suite, _run, lambda: Path(_fetch("debian-archive-keyring", None)["Tree"]))
        return True
    if os.geteuid() != 0 or find_tool("apt-get") is None:
        return False
    say("refreshing apt's package lists")
    return _apt(["apt-get", "-q", "update"]).returncode == 0


def checked(argv: list[str], cwd: Path | None = None) -> str:
    """Return what a command of apt or dpkg printed.

    Raises:
        SetupError: It failed.
    """
    done = _apt(argv, cwd)
    if done.returncode != 0:
        words = [word for word in argv if not word.startswith("-")][:2]
        raise SetupError(f"{' '.join(words)} failed: {_last_line(done.stderr)}")
    return done.stdout.decode(errors="replace")


def _run(argv: list[str]) -> tuple[int, str, str]:
    done = _apt(argv)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _apt(argv: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise SetupError(f"{argv[0]} is not installed: this needs Debian or a system with apt") from None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
