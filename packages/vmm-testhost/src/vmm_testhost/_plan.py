"""What a run passes into the host: environment, terminal size, writable shares."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

PASSED = ("CI", "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER", "VIRTUAL_ENV")
PASSED_PREFIXES = (
    *("ASAN_", "COLUMNS", "COVERAGE_", "HYPOTHESIS_", "LC_", "LINES", "LSAN_"),
    *("PYTEST_", "PYTHON", "UBSAN_", "VMM_"),
)
OWN_INSIDE = tuple(Path(path) for path in ("/proc", "/sys", "/dev", "/run/vmm-testhost"))
TEMPORARY = "/run/vmm-testhost/tmp"  # in /tmp lie folders that are closed to a QEMU without rights
FOREIGN_PATH = "/usr/sbin:/usr/bin"  # not /usr/local, where this machine's own programs lie
MAX_SHARES = 20  # each is a PCI device; q35's root bus has 32 slots

Share = tuple[str, Path]  # mount tag, directory
Bind = tuple[str, str, Path]  # mount tag, name inside the share or "", path it is bound over


def inner_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables inside: those of ours that steer programs and name no session, and a TMPDIR."""
    passed = {
        key: value for key, value in environ.items() if key in PASSED or key.startswith(PASSED_PREFIXES)
    }
    return {"TMPDIR": TEMPORARY, **passed}


def foreign_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those that also hold where this machine's programs do not run, and a PATH."""
    ours = ("PATH", "VIRTUAL_ENV", "SHELL")
    kept = {key: v for key, v in variables.items() if key not in ours and not key.startswith("PYTHON")}
    return {"PATH": FOREIGN_PATH, **kept}


def terminal_size() -> bytes:
    """Return rows and columns of our terminal as the agent takes them."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        size = os.terminal_size((80, 24))
    return size.lines.to_bytes(2, "little") + size.columns.to_bytes(2, "little")


def plan_shares(paths: Sequence[Path]) -> tuple[list[Share], list[Bind]]:
    """Plan one 9p share per directory that must keep what is written.

    A file is reached through a share of its folder, of which only the file is bound over its place.

    Args:
        paths: resolved, existing files and directories.

    Returns:
        The shares, and the binds with outer directories before what lies in them.

    Raises:
        ValueError: A path lies where the host has file systems of its own, is the root, or there are too
            many.
    """
    tags: dict[Path, str] = {}
    binds: list[Bind] = []
    for path in sorted(set(paths)):
        if path == Path("/") or any(path.is_relative_to(own) for own in OWN_INSIDE):
            raise ValueError(f"writable {path}: the emulated host has its own there; choose another place")
        folder, inner = (path, "") if path.is_dir() else (path.parent, path.name)
        binds.append((tags.setdefault(folder, f"vmm-share{len(tags)}"), inner, path))
    if len(tags) > MAX_SHARES:
        raise ValueError(f"writable paths lie in {len(tags)} directories, at most {MAX_SHARES} can be shared")
    return [(tag, folder) for folder, tag in tags.items()], binds
