"""Line and branch coverage of vmm-memory and virtio-queue, Python and C, by their own tests.

Usage: python tools/coverage_run.py [--missing] [--long] [PACKAGE...]

Each core is built with --coverage into a scratch folder and laid over a copy of its package that comes
first on PYTHONPATH, as tools/sanitize.py does; the developer's own extensions are not touched. coverage.py
counts the Python, gcov the C: headers by what every file that includes them executed, each function by
itself. A public header of which a package has a copy (tests compare them) counts once, in its own package.
Prints a table and fails below the floors of tools/coverage.toml, which also lists what is left out, and why.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((ROOT / "tools/coverage.toml").read_text())
PACKAGES = tuple(CONFIG["floor"])
GENERATED = "_core_cffi.c"
HOMES = {"vmm_access.h": "vmm-memory"}


@dataclass
class Counts:
    """What one file has, and what of it was not executed."""

    lines: dict[int, int] = field(default_factory=dict)  # line: times
    # (line, which way, function: a macro makes several on one line): times
    branches: dict[tuple[int, int, str], int] = field(default_factory=dict)

    def drop(self, excluded: set[int]) -> None:
        """Leave lines out, with their branches."""
        self.lines = {line: n for line, n in self.lines.items() if line not in excluded}
        self.branches = {key: n for key, n in self.branches.items() if key[0] not in excluded}

    def missing(self) -> str:
        """The lines that were not executed, and the branches that were not taken."""
        lines = [str(line) for line, n in sorted(self.lines.items()) if not n]
        ways = [
            f"{line}->{way}{'@' * bool(function)}{function}"
            for (line, way, function), n in sorted(self.branches.items())
            if not n and self.lines.get(line)
        ]
        return " ".join(lines + ways)


def percent(counts: Sequence[int]) -> float:
    """How many of them are above zero."""
    return 100.0 * sum(map(bool, counts)) / len(counts) if counts else 100.0


def run(command: Sequence[str | Path], *, capture: bool = False) -> str:
    """Run a command that must succeed; what it printed, if that is captured."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def build(package: Path, target: Path, objects: Path) -> None:
    """Compile the core, each file by itself so that gcov finds its notes, and link it as `target`."""
    include = sysconfig.get_paths()["include"]
    flags = ["-std=c11", "-g", "-O0", "-fPIC", "-I", str(package / "csrc"), "-I", include]
    built = []
    for source in sorted((package / "csrc").glob("*.c")):
        if source.name.endswith(".csrc.c"):
            continue
        made = objects / f"{source.stem}.o"
        # Counters that threads share must be atomic, or updates are lost.
        run(["gcc", *flags, "--coverage", "-fprofile-update=atomic", "-c", source, "-o", made])
        built.append(made)
    run(["gcc", "-shared", "--coverage", *built, "-o", target])


def stage(name: str, scratch: Path) -> Path:
    """A copy of the package's sources over its counting core; the folder of its object files."""
    package, module = ROOT / "packages" / name, name.replace("-", "_")
    shutil.copytree(
        package / "src" / module, scratch / module, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    objects = scratch / "objects" / name
    objects.mkdir(parents=True)
    build(package, scratch / module / "_core.abi3.so", objects)
    return objects


def suite(name: str, scratch: Path, *, long: bool) -> None:
    """Run the package's tests under coverage.py.

    Raises:
        SystemExit: They failed.
    """
    module = name.replace("-", "_")
    command = [sys.executable, "-m", "coverage", "run", "--branch", f"--source={scratch / module}"]
    command += [f"--data-file={scratch / f'{name}.data'}", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "pure or kvm", "-o", "timeout=600", str(ROOT / "packages" / name / "tests")]
    env = os.environ | {
        "PYTHONPATH": f"{scratch}{os.pathsep}{ROOT / 'tools'}",
        "VMM_HYPOTHESIS_PROFILE": "long" if long else "ci",
        "VMM_COVERAGE": "1",
    }
    if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode:
        raise SystemExit(f"coverage: the tests of {name} failed")


def python_counts(name: str, scratch: Path) -> dict[str, Counts]:
    """Executed lines and arcs by file, from coverage.py."""
    report = scratch / f"{name}.json"
    command = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(report)]
    run([*command, f"--data-file={scratch / f'{name}.data'}"])
    found = {}
    for path, file in json.loads(report.read_text())["files"].items():
        counts = Counts()
        counts.lines = dict.fromkeys(file["executed_lines"], 1) | dict.fromkeys(file["missing_lines"], 0)
        for key, times in (("executed_branches", 1), ("missing_branches", 0)):
            counts.branches |= dict.fromkeys(((start, end, "") for start, end in file[key]), times)
        short = Path(path).resolve().relative_to(scratch.resolve())
        found[f"{name}/src/{short}"] = counts
    return found


def c_counts(name: str, objects: Path) -> dict[str, Counts]:
    """Executed lines and branches by file, from gcov, summed over all files that include a header."""
    found: dict[str, Counts] = {}
    for data in sorted(objects.glob("*.gcda")):
        output = run(["gcov", "--json-format", "--stdout", "--branch-probabilities", data], capture=True)
        for file in json.loads(output)["files"]:
            path = Path(file["file"]).resolve()
            # The generated file itself does not count, but what it has of the headers does.
            if not path.is_relative_to(ROOT / "packages" / name / "csrc") or path.name == GENERATED:
                continue
            if HOMES.get(path.name, name) != name:
                continue
            counts = found.setdefault(f"{name}/csrc/{path.name}", Counts())
            for line in file["lines"]:
                number = line["line_number"]
                counts.lines[number] = counts.lines.get(number, 0) + line["count"]
                for way, branch in enumerate(line["branches"]):
                    key = (number, way, line["function_name"])
                    counts.branches[key] = counts.branches.get(key, 0) + branch["count"]
    return found


def span_of(path: Path, function: str) -> set[int]:
    """The lines of one function."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name == function:
                return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        raise SystemExit(f"coverage: {path} has no function {function}")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines, 1) if re.match(rf"^\w.*\b{function}\(", line))
    end = next(i for i, line in enumerate(lines, 1) if i > start and line == "}")
    return set(range(start, end + 1))


def source_of(file: str) -> Path:
    """Where a counted file stands in the repository."""
    return ROOT / "packages" / file


def excluded(file: str) -> set[int]:
    """The lines that tools/coverage.toml leaves out of a file."""
    path, lines = source_of(file), set()
    for entry in CONFIG["exclude"]:
        if not fnmatch.fnmatch(file, entry["file"]):
            continue
        if "function" in entry:
            lines |= span_of(path, entry["function"])
        else:
            text = path.read_text().splitlines()
            lines |= {i for i, line in enumerate(text, 1) if re.search(entry["lines"], line)}
    return lines


def rows(counted: dict[str, Counts], *, missing: bool) -> Iterator[str]:
    """A line per file."""
    for file, counts in sorted(counted.items()):
        lines, branches = list(counts.lines.values()), list(counts.branches.values())
        yield f"{file:58} {percent(lines):6.1f} {len(lines):5} {percent(branches):6.1f} {len(branches):5}"
        if missing and (text := counts.missing()):
            yield f"    {text}"


def judge(name: str, counted: dict[str, Counts]) -> list[str]:
    """Print the totals of a package; what is below its floor."""
    low = []
    for language in ("python", "c"):
        chosen = [c for file, c in counted.items() if file.endswith(".py") is (language == "python")]
        for kind in ("lines", "branches"):
            value = percent([n for counts in chosen for n in getattr(counts, kind).values()])
            floor = CONFIG["floor"][name][f"{language}_{kind}"]
            print(f"{name} {language} {kind}: {value:.2f} % (floor {floor} %)")
            low += [f"{name} {language} {kind}"] if value < floor else []
    return low


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--missing", action="store_true", help="also the lines and branches not taken")
    parser.add_argument("--long", action="store_true", help="full Hypothesis counts")
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; default all"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.packages) - set(PACKAGES):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(PACKAGES)}")
    low = []
    for name in options.packages or PACKAGES:
        with tempfile.TemporaryDirectory(prefix="vmm-coverage-") as place:
            scratch = Path(place)
            objects = stage(name, scratch)
            suite(name, scratch, long=options.long)
            counted = python_counts(name, scratch) | c_counts(name, objects)
            for file, counts in counted.items():
                counts.drop(excluded(file))
            print(f"{'file':58} lines%     n  ways%     n")
            print("\n".join(rows(counted, missing=options.missing)))
            low += judge(name, counted)
    print(f"coverage: {'below the floor: ' + ', '.join(low) if low else 'at or above every floor'}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
