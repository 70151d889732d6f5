"""Run the tests of every C package against its core built with ASan and UBSan, or with TSan.

Usage: python tools/sanitize.py [--tool address|thread] [--long] [PACKAGE...]

The cores are built with VMM_STRICT_C=1 and for ASan VMM_SANITIZE=1 under build/sanitize/ (keyed by what goes
into them, so a second run builds nothing) and laid over copies of the packages in a scratch folder that comes
first on PYTHONPATH; the developer's own extensions are not touched. pytest then runs in the ordinary
interpreter with the sanitizer's library preloaded. This module is also a plugin of that pytest: it fails the
run when a core was not the instrumented one, and ends it, with all stacks, at a test that does not come back;
the run is then taken up behind that test.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
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
# Seconds for one test, and for one package with all its runs: a quiet machine needs up to 6 and up to 100.
LIMITS, LONG_LIMITS = (180.0, 1200.0), (1800.0, 3300.0)
WATCHED, NO_TESTS = 1, 5  # statuses: of faulthandler's watchdog, and of a pytest without anything left to run
TREE = "VMM_SANITIZE_TREE"  # tells the plugin where the instrumented copies lie
BEGUN = "VMM_SANITIZE_BEGUN"  # and the file of tests that began: a line each, ended as the test ends
HANG = "VMM_SANITIZE_HANG"  # and the seconds that a test may take
FAILED = "\tfailed"
HANGS = 3  # tests of one package without an end, before its run is given up

PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-p", "sanitize", "-p", "no:cacheprovider", "-m", "pure or kvm"),
    # This leaves file descriptor 2 alone, where the sanitizers write as the process dies.
    "--capture=sys",
    # No watchdog threads of Python: libasan 12 does not reset the allocator's locks in a forked child, and a
    # thread that allocates in the moment of a test's fork would leave that child waiting for ever.
    *("-o", "timeout=0", "-o", "timeout_method=signal", "-o", "faulthandler_timeout=0"),
)


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
    """What pytest is to run of one package."""
    tests = ROOT / "packages" / name / "tests"
    return [*(f"--ignore={tests / file}" for file in MODELS.get(name, ())), str(tests)]


@attrs.frozen
class Outcome:
    """What came of the tests of one package.

    Attributes:
        passed: All that came back passed, without a report.
        hung: The tests that did not come back.
        output: What was printed, with the stacks of those.
    """

    passed: bool
    hung: Sequence[str]
    output: str


def run_suite(
    name: str, tree: Path, tool: Tool = ADDRESS, *, long: bool = False, echo: bool = False
) -> Outcome:
    """Run the tests of one package under a sanitizer.

    Args:
        name: A package of CORES.
        tree: What `staged` yielded.
        tool: What it was built with.
        long: Full Hypothesis counts instead of those of profile `ci`.
        echo: Print the output as it comes.
    """
    return run_tests(suite(name), tree, tool, LONG_LIMITS if long else LIMITS, long=long, echo=echo)


def run_tests(
    tests: Sequence[str],
    tree: Path,
    tool: Tool,
    limits: tuple[float, float],
    *,
    long: bool = False,
    echo: bool = False,
) -> Outcome:
    """Run a pytest with this plugin, and again behind each test that does not come back, within `limits`."""
    hung: list[str] = []
    output = ""
    test_limit, run_limit = limits
    deadline = time.monotonic() + run_limit
    with tempfile.NamedTemporaryFile("a+", prefix="vmm-begun-") as begun:
        env = environment(tree, tool, long=long) | {BEGUN: begun.name, HANG: str(test_limit)}
        while True:
            left = max(deadline - time.monotonic(), 1.0)
            ended = bounded.run([*PYTEST, *tests], limit=left, cwd=ROOT, env=env, echo=echo)
            output += ended.text
            begun.seek(0)
            last = begun.read().rpartition("\n")[2]
            if not last or ended.status != WATCHED or len(hung) == HANGS:
                break
            hung.append(last)
            print(file=begun, flush=True)
    fine = ended.status == 0 or (ended.status == NO_TESTS and len(hung) > 0)
    return Outcome(fine and not any(report in output for report in tool.reports), hung, output)


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


def noted(text: str) -> None:
    """Add to the file of tests that began."""
    with Path(os.environ[BEGUN]).open("a") as file:
        file.write(text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what passed or hung before this run was taken up again."""
    over = {line for line in Path(os.environ[BEGUN]).read_text().splitlines() if not line.endswith(FAILED)}
    items[:] = [item for item in items if item.nodeid not in over]


def pytest_runtest_logstart(nodeid: str) -> None:
    """Watch the test: in C, without an allocation."""
    noted(nodeid)
    faulthandler.dump_traceback_later(float(os.environ[HANG]), exit=True, file=2)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Have a test that failed run again, for its report, when the run is taken up."""
    if report.failed:
        noted(FAILED)


def pytest_runtest_logfinish() -> None:
    """It came back."""
    faulthandler.cancel_dump_traceback_later()
    noted("\n")


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
            outcome = run_suite(name, tree, tool, long=options.long, echo=True)
            failed += [*([] if outcome.passed else [name]), *outcome.hung]
    print(f"sanitize: {'failed: ' + ', '.join(failed) if failed else 'no report'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
