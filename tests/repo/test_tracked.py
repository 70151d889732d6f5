"""What is in git: generated C that is current, nothing built, no place of one machine."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces: this file must pass its own test.
PLACES = re.compile(
    "|".join(
        [
            r"(?<![\w.-])/" + r"(?:work|root|home)/[\w.-]",
            r"py" + r"pi\.org|pythonhosted" + r"\.org",
            r"crates" + r"\.io",
            r"(?:deb|snapshot|security|ftp\.\w+)\." + r"debian\.org",
            r"registry\." + r"npmjs|proxy\." + r"golang",
        ]
    )
)


def test_generated_c_is_current():
    """The committed cffi C, and the copies of the public headers, are what the generator makes now."""
    command = [sys.executable, ROOT / "tools/gen_cffi.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_machine_paths_or_registries(tracked):
    """No file names a home folder, somebody's checkout, or a package registry's host."""
    found = []
    for path in tracked:
        # Cargo's lock spells where crates come from in one canonical way, whatever mirror a machine uses.
        if path.name == "Cargo.lock":
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PLACES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found


def test_nothing_built_is_tracked():
    """Objects, caches and images are made, never committed; no file is large."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.splitlines() if (ROOT / name).exists()]
    assert not [
        name for name in names if re.search(r"\.(so|o|a|pyc|whl|img|qcow2|egg-info)\b|__pycache__", name)
    ]
    assert not [name for name in names if (ROOT / name).stat().st_size > 500_000]


def test_every_test_has_a_docstring(tracked):
    """One sentence that says what is promised, in every test file."""
    missing = []
    for path in tracked:
        if re.fullmatch(r"test_\w+\.py", path.name):
            text = path.read_text()
            for match in re.finditer(r"^( *)def (test_\w+)\([^)]*\):\n(\s*)(.*)$", text, re.MULTILINE):
                if not match[4].startswith(('"""', 'r"""')):
                    missing.append(f"{path.relative_to(ROOT)}: {match[2]}")
    assert not missing
