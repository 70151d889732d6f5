"""Run a command as a user without rights but for `/dev/kvm`, in a clone of its own; needs root to begin with.

    tools/unprivileged.py -- make test
    tools/unprivileged.py --here -- .venv/bin/python -m pytest packages/vmm-reference

The user has a number and no name, no group, no home but a fresh one, and an interpreter that it can start:
in the clone PYTHON names one of the system's, with --here it is this checkout's, whatever is closed around it
(the checkout cannot be written then). In a mount namespace of the command's own, `/dev/kvm` belongs to it:
the machine's node stays as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USER = 61234  # in no /etc/passwd, as in containers that run under an arbitrary number
KVM = (10, 232)  # Documentation/admin-guide/devices.txt
# $1 is the folder, $2 the user, $3 the node's number or "none"; what has to be seen though a folder around it
# is closed, and those folders, come in $SHOWN and $CLOSED.
PRIVATE = """
set -e
place=$1; user=$2; kvm=$3; shift 3
mount -t tmpfs -o mode=755 none "$place/dev"
if [ "$kvm" != none ]; then
    mknod "$place/dev/kvm" c $kvm
    chown "$user:$user" "$place/dev/kvm"
    chmod 660 "$place/dev/kvm"
    mount --bind "$place/dev/kvm" /dev/kvm
fi
number=0
for path in $SHOWN; do
    number=$((number + 1)); mkdir "$place/dev/$number"; mount --bind "$path" "$place/dev/$number"
done
for path in $CLOSED; do mount -t tmpfs -o mode=755 none "$path"; done
number=0
for path in $SHOWN; do
    number=$((number + 1)); mkdir -p "$path"; mount --bind "$place/dev/$number" "$path"
done
unset SHOWN CLOSED
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --inh-caps=-all "$@"
"""


def closed_around(path: Path) -> list[Path]:
    """Return the folders on the way to `path` that others may not enter, outermost first."""
    return [folder for folder in (*reversed(path.parents), path) if not folder.stat().st_mode & 0o001]


def interpreter() -> str:
    """Return a Python that others than its owner can start, 3.11 or later."""
    closed = closed_around(Path(sys.base_prefix).resolve())
    if not closed:
        return str(Path(sys.executable).resolve())
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        found = Path("/usr/bin", name)
        wanted = [str(found), "-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"]
        if found.exists() and subprocess.run(wanted, check=False, capture_output=True).returncode == 0:
            return str(found)
    sys.exit(f"unprivileged: {closed[0]} is closed to others; apt-get install python3 python3-venv")


def clone(place: Path) -> Path:
    """Return a clone of the last commit that belongs to the user."""
    folder = place / "clone"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    return folder


def opened() -> dict[str, str]:
    """Return what the namespace has to show and to cover, for this checkout to be usable by others."""
    shown = {path: closed_around(path) for path in (ROOT, Path(sys.base_prefix).resolve())}
    outermost = {closed[0] for closed in shown.values() if closed}
    return {
        "SHOWN": " ".join(str(path) for path, closed in shown.items() if closed),
        "CLOSED": " ".join(map(str, outermost)),
    }


def run(command: Sequence[str], place: Path, *, kvm: bool, here: bool, read_only_home: bool) -> int:
    """Run `command` as the user, below `place` or in this checkout; return its exit status."""
    for name in ("dev", "home", "tmp"):
        (place / name).mkdir()
    for name in ("home", "tmp"):
        os.chown(place / name, USER, USER)
    if read_only_home:
        (place / "home").chmod(0o555)
        os.chown(place / "home", 0, 0)
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "CI", "TERM") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("VMM_", "PIP_"))}
    path = [*os.get_exec_path(), "/usr/bin", "/bin"]
    environment = {
        **kept,
        "PATH": ":".join(folder for folder in path if not Path(folder).is_relative_to(Path.home())),
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
    }
    environment |= opened() if here else {"PYTHON": interpreter()}
    folder = ROOT if here else clone(place)
    node = "{} {}".format(*KVM) if kvm else "none"
    private = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh", str(place), str(USER), node]
    return subprocess.run([*private, *command], cwd=folder, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--here", action="store_true", help="in this checkout instead of a clone of it")
    parser.add_argument("--no-kvm", action="store_true", help="leave /dev/kvm as it is")
    parser.add_argument("--read-only-home", action="store_true", help="a home that cannot be written")
    parser.add_argument("--keep", action="store_true", help="keep the clone and the home, and say where")
    parser.add_argument("command", nargs="+", help="what to run in the clone")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("unprivileged: you are no root, so run the command itself; this one takes rights away")
    kvm = not options.no_kvm and Path("/dev/kvm").exists()
    place = Path(tempfile.mkdtemp(prefix="vmm-unprivileged-"))
    place.chmod(0o755)
    try:
        home = options.read_only_home
        return run(options.command, place, kvm=kvm, here=options.here, read_only_home=home)
    finally:
        if options.keep:
            print(f"unprivileged: kept {place}", file=sys.stderr)
        else:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
