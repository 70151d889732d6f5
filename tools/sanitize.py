"""Run the tests of every C package against its core built with ASan and UBSan, or with TSan.

Usage: python tools/sanitize.py [--tool address|thread] [--long] [PACKAGE...]

The cores are built with VMM_STRICT_C=1 and for ASan VMM_SANITIZE=1 under build/sanitize/ (keyed by what goes
into them, so a second run builds nothing) and laid over copies of the packages in a scratch folder that comes
first on PYTHONPATH; the developer's own extensions are not touched. pytest then runs in the ordinary
interpreter with the sanitizer's library preloaded. This module is also a plugin of that pytest: it fails the
run when a core was not the instrumented one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import bounded

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "sanitize"
CORES = tuple(sorted(setup.parent.name for setup in ROOT.glob("packages/*/setup.py")))
# Tests that explore models in Python for minutes: no core has a part in them.
MODELS = {"virtio-queue": ("test_notifications.py", "test_ordering.py")}
LIMIT, LONG_LIMIT = 900, 3300  # seconds for one package; a quiet machine takes up to 100
TREE = "VMM_SANITIZE_TREE"  # tells the plugin where the instrumented copies lie


def joined(options: Mapping[str, int | str]) -> str:
    """Options as the sanitizers read them from their variable."""
    return ":".join(f"{name}={value}" for name, value in options.items())


@attrs.frozen(eq=False)
class Tool:
    """A sanitizer.

    Attributes:
        name: What `--tool` calls it.
        library: What has to be loaded before all else, as the compiler knows it.
        reports: What begins its reports.
        build: Environment of the build.
        run: Environment of the tests.
    """

    name: str
    library: str
    reports: tuple[str, ...]
    build: Mapping[str, str]
    run: Mapping[str, str]


ADDRESS = Tool(
    "address",
    "libasan.so",
    ("ERROR: AddressSanitizer", "runtime error:", "AddressSanitizer:DEADLYSIGNAL"),
    # ASan does not see through the checked variants of memcpy that fortification puts in its place.
    build={"VMM_SANITIZE": "1", "CFLAGS": "-U_FORTIFY_SOURCE"},
    run={
        "VMM_SANITIZE": "1",
        # Small Python objects in blocks of malloc, so that ASan sees an overrun of a bytes object too.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": joined(
            {
                # CPython keeps interned and static objects to the end on purpose, and LeakSanitizer cannot
                # tell them from a core's; the cores own no memory but mappings, whose end the suites check
                # themselves.
                "detect_leaks": 0,
                "abort_on_error": 1,
                # Guard pages must kill with a plain SIGSEGV, as without sanitizers: the suites look for it.
                "handle_segv": 0,
                "handle_sigbus": 0,
                # The suites ask for impossible sizes and want ENOMEM.
                "allocator_may_return_null": 1,
            }
        ),
        "UBSAN_OPTIONS": joined({"halt_on_error": 1, "print_stacktrace": 1}),
    },
)
THREAD = Tool(
    "thread",
    "libtsan.so",
    ("WARNING: ThreadSanitizer", "FATAL: ThreadSanitizer", "ThreadSanitizer:DEADLYSIGNAL"),
    build={
        # Without -fno-builtin gcc expands memcpy and the like in place, uninstrumented. Bare fences, which
        # TSan does not understand, become read-modify-writes.
        "CFLAGS": "-U_FORTIFY_SOURCE -fsanitize=thread -fno-builtin -fno-omit-frame-pointer -g"
        f" -include {ROOT / 'tests/wakeups/csrc/tsan.h'}",
        "LDFLAGS": "-fsanitize=thread",
    },
    run={
        "TSAN_OPTIONS": joined(
            {
                "halt_on_error": 1,
                "exitcode": 66,
                "suppressions": str(ROOT / "tests/wakeups/csrc/tsan.supp"),
                # The suites fork with threads about.
                "die_after_fork": 0,
                "handle_segv": 0,
                "handle_sigbus": 0,
                "allocator_may_return_null": 1,
                "report_signal_unsafe": 0,
            }
        )
    },
)
TOOLS = {tool.name: tool for tool in (ADDRESS, THREAD)}


def import_name(package: str) -> str:
    """Name that `import` takes for a package."""
    return package.replace("-", "_")


def compiler() -> str:
    """The C compiler of the build; interpreters built with clang would otherwise ask for their own."""
    return os.environ.get("CC", "gcc")


@functools.cache
def preload(tool: Tool = ADDRESS) -> str:
    """Path of the sanitizer's library.

    Raises:
        FileNotFoundError: The compiler has none.
    """
    found = subprocess.run(
        [compiler(), f"-print-file-name={tool.library}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        raise FileNotFoundError(
            f"{compiler()} has no {tool.library}: install gcc with its sanitizer libraries"
        )
    return str(Path(found).resolve())


def fingerprint(package: Path, tool: Tool) -> str:
    """Hash of all that decides what an instrumented core looks like."""
    version = subprocess.run([compiler(), "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + sys.version.encode() + repr(sorted(tool.build.items())).encode())
    for source in [
        package / "setup.py",
        ROOT / "tests/wakeups/csrc/tsan.h",
        *sorted((package / "csrc").iterdir()),
    ]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def build(name: str, tool: Tool = ADDRESS) -> Path:
    """Build the instrumented core of one package, or find it in the cache.

    Args:
        name: A package of CORES.
        tool: One of TOOLS.

    Returns:
        The shared object.

    Raises:
        subprocess.CalledProcessError: It does not compile, or not without warnings.
    """
    package = ROOT / "packages" / name
    kept = CACHE / f"{name}-{tool.name}-{fingerprint(package, tool)}.so"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = [sys.executable, "setup.py", "-q", "build_ext"]
        places = ["--build-lib", f"{scratch}/lib", "--build-temp", f"{scratch}/temp"]
        env = os.environ | {"VMM_STRICT_C": "1", "CC": compiler()} | tool.build
        subprocess.run([*command, *places], cwd=package, env=env, check=True)
        (built,) = Path(scratch).glob("lib/*/_core*.so")
        built.rename(kept)  # in one step: another run may look for it
    for old in CACHE.glob(f"{name}-{tool.name}-*.so"):
        if old != kept:
            old.unlink(missing_ok=True)
    return kept


@contextlib.contextmanager
def staged(tool: Tool = ADDRESS, packages: Sequence[str] = CORES) -> Iterator[Path]:
    """A scratch folder with every C package, or some, as it is now, over its instrumented core."""
    objects = {name: build(name, tool) for name in packages}
    with tempfile.TemporaryDirectory(prefix="vmm-sanitize-") as scratch:
        for name, core in objects.items():
            source = ROOT / "packages" / name / "src" / import_name(name)
            target = Path(scratch) / import_name(name)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            shutil.copy(core, target / "_core.abi3.so")
        yield Path(scratch)


def environment(tree: Path, tool: Tool = ADDRESS, *, long: bool = False) -> dict[str, str]:
    """Environment of an interpreter that runs the instrumented cores of `tree`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ours = {
        "PYTHONPATH": f"{tree}{os.pathsep}{ROOT / 'tools'}",
        "LD_PRELOAD": preload(tool),
        "VMM_HYPOTHESIS_PROFILE": "long" if long else "ci",
        TREE: str(tree),
    }
    return inherited | ours | tool.run


def suite(name: str) -> list[str]:
    """The command that runs the tests of one package."""
    options = ["-q", "-p", "sanitize", "-p", "no:cacheprovider", "-m", "pure or kvm"]
    # --capture=sys leaves file descriptor 2 alone, where the sanitizers write as the process dies.
    options += ["--capture=sys", "-o", "timeout=300"]
    # No watchdog threads: libasan 12 does not reset the allocator's locks in a forked child, and a thread
    # that allocates in the moment of a test's fork would leave that child waiting for ever.
    options += ["-o", "timeout_method=signal", "-o", "faulthandler_timeout=0"]
    tests = ROOT / "packages" / name / "tests"
    options += [f"--ignore={tests / file}" for file in MODELS.get(name, ())]
    return [sys.executable, "-m", "pytest", *options, str(tests)]


def run_suite(
    name: str, tree: Path, tool: Tool = ADDRESS, *, long: bool = False, echo: bool = False
) -> tuple[bool, str]:
    """Run the tests of one package under a sanitizer.

    Args:
        name: A package of CORES.
        tree: What `staged` yielded.
        tool: What it was built with.
        long: Full Hypothesis counts instead of those of profile `ci`.
        echo: Print the output as it comes.

    Returns:
        Whether all passed without a report, and the output.
    """
    ended = bounded.run(
        suite(name),
        limit=LONG_LIMIT if long else LIMIT,
        cwd=ROOT,
        env=environment(tree, tool, long=long),
        echo=echo,
    )
    return ended.status == 0 and not any(report in ended.text for report in tool.reports), ended.text


def instrumented() -> list[str]:
    """Cores of ours that this process loaded from the scratch folder.

    Raises:
        RuntimeError: One came from elsewhere.
    """
    tree = Path(os.environ[TREE])
    found = []
    for name in CORES:
        core = f"{import_name(name)}._core"
        if core not in sys.modules:
            continue
        place = str(sys.modules[core].__file__)
        if not Path(place).is_relative_to(tree):
            raise RuntimeError(f"{core} is {place}, not the instrumented one under {tree}")
        found.append(core)
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when it tested another core than the instrumented one, or none."""
    try:
        complaint = "" if instrumented() else "no core was loaded"
    except RuntimeError as err:
        complaint = str(err)
    if complaint:
        print(f"sanitize: {complaint}", file=sys.stderr)
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which cores were under test."""
    with contextlib.suppress(RuntimeError):
        terminalreporter.write_line(f"instrumented: {' '.join(instrumented())}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--tool", choices=TOOLS, default=ADDRESS.name, help="default: %(default)s, with UBSan"
    )
    parser.add_argument("--long", action="store_true", help="full Hypothesis counts")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(CORES)}; default all")
    options = parser.parse_args(arguments)
    if unknown := set(options.packages) - set(CORES):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(CORES)}")
    failed, tool = [], TOOLS[options.tool]
    with staged(tool) as tree:
        for name in options.packages or CORES:
            print(f"== {name}", flush=True)
            passed, _ = run_suite(name, tree, tool, long=options.long, echo=True)
            failed += [] if passed else [name]
    print(f"sanitize: {'failed: ' + ', '.join(failed) if failed else 'no report'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
