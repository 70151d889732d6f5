"""A Debian suite that this machine does not follow, through an apt configuration of its own.

Nothing of the machine's apt changes: lists, caches and sources lie in our cache folder, while its proxies,
credentials and certificates hold. The mirror is the one that the machine's own sources name. Signatures
are checked as always, with the machine's archive keyring; where it lacks the keys of a later
suite, with that of the newest debian-archive-keyring to be had from the machine's own, trusted sources.
"""

import functools
import re
import time
from collections.abc import Callable
from pathlib import Path

from ._cache import cache_dir, say
from ._errors import SetupError

COMPONENT = "main"
KEYRINGS = ("usr/share/keyrings/debian-archive-keyring.gpg", "usr/share/keyrings/debian-archive-keyring.pgp")
_TARGETS = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
_UNTRUSTED = ("NO_PUBKEY", "EXPKEYSIG", "not signed", "signatures couldn't be verified", "Missing key")

STALE_AFTER = 24 * 3600.0  # seconds for which fetched lists are believed

Run = Callable[[list[str]], tuple[int, str, str]]  # argv → (status, stdout, stderr)


def check_suite(suite: str) -> str:
    """Return the suite's name, perhaps with an architecture; ValueError when it cannot be one."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*(:[a-z0-9]+)?", suite):
        raise ValueError(f"{suite!r} is not the name of a Debian suite")
    return suite


def options(suite: str) -> list[str]:
    """Return apt's options for a suite's private configuration, whose folders are made."""
    root = _root(suite)
    for folder in ("lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    settings = {
        "Dir::State": root,
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Update::Post-Invoke-Success": "",
        "APT::Sandbox::User": "root",
        "APT::Default-Release": "",
        "APT::Architecture": _arch(suite),
        "APT::Architectures": _arch(suite),
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _arch(suite: str) -> str:
    return suite.partition(":")[2] or "amd64"


def is_stale(suite: str) -> bool:
    """Tell whether a suite's lists are missing or old."""
    try:
        return time.time() - (_root(suite) / "updated").stat().st_mtime > STALE_AFTER
    except FileNotFoundError:
        return True


def update(suite: str, run: Run, newest_keyring: Callable[[], Path]) -> None:
    """Fetch the signed lists of a suite.

    Args:
        suite: e.g. ``"forky"``, or ``"forky:riscv64"``.
        run: runs a command of apt.
        newest_keyring: returns the unpacked tree of the package debian-archive-keyring.

    Raises:
        SetupError: the mirror has no such suite (any longer), cannot be reached, or nobody we trust has
            signed the lists.
    """
    mirror = debian_mirror(run)
    say(f"fetching the package lists of Debian {suite}")
    keyrings: tuple[Callable[[], Path | None], ...] = (
        functools.partial(_keyring, Path("/")),
        lambda: _keyring(newest_keyring()),
    )
    message = ""
    for keyring in keyrings:
        signed_by = keyring()
        trust = [f"signed-by={signed_by}"] if signed_by is not None else []
        marks = " ".join([*trust, f"arch={_arch(suite)}", "lang=none", "target=Packages"])
        (_root(suite) / "sources.list").write_text(
            f"deb [{marks}] {mirror} {suite.partition(':')[0]} {COMPONENT}\n"
        )
        status, _, stderr = run(["apt-get", "-q", *options(suite), "update"])
        if status == 0:
            (_root(suite) / "updated").touch()
            return
        message = stderr
        if not any(word in message for word in _UNTRUSTED):
            break
        say(f"the keyring {signed_by} does not verify Debian {suite}")
    raise SetupError(f"Debian {suite}: {_explain(message)}")


def _explain(stderr: str) -> str:
    if "does not have a Release file" in stderr or "no longer has a Release file" in stderr:
        return "the mirror of this machine's apt sources has no such suite, or has it no longer"
    if any(word in stderr for word in _UNTRUSTED):
        return "its lists are not signed by a key of any debian-archive-keyring to be had; not used"
    lines = [line for line in stderr.splitlines() if line.startswith(("E:", "W:"))]
    return f"apt-get update failed: {lines[0] if lines else stderr.strip() or 'no message'}"


def debian_mirror(run: Run) -> str:
    """Return the URI of the Debian archive among this machine's apt sources.

    Raises:
        SetupError: they name none.
    """
    status, stdout, stderr = run(
        ["apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages"],
    )
    rows = [line.split("|", 2) for line in stdout.splitlines() if line.count("|") >= 2]
    # Origin and label are known only once lists were fetched.
    known = [uri for origin, label, uri in rows if origin == label == "Debian"]
    guessed = [uri for _, _, uri in rows if uri.rstrip("/").endswith("/debian")]
    for uri in known + guessed:
        if " " not in uri:
            return uri
    reason = stderr.strip() if status else f"{len(rows)} sources, none of the Debian archive"
    raise SetupError(f"this machine's apt sources name no mirror of Debian ({reason})")


def _keyring(tree: Path) -> Path | None:
    """Return the archive keyring below `tree`; None leaves apt to the keys it trusts anyway."""
    return next((tree / name for name in KEYRINGS if (tree / name).exists()), None)


def _root(suite: str) -> Path:
    # Without a colon, which parts of apt take for the end of a path.
    root = cache_dir() / "apt" / check_suite(suite).replace(":", "_")
    root.mkdir(parents=True, exist_ok=True)
    return root
