"""The cores under ASan and UBSan: their tests raise no report, and a deliberate overrun raises one."""

import re
import signal
import subprocess
import sys

import bounded
import pytest
import sanitize
from vmm_testhost.pytest_plugin import LONG

pytestmark = [pytest.mark.pure, pytest.mark.timeout(3600 if LONG else 1500)]

OVERRUNS = {
    "kvm-ioctls": "kvmx_selftest_overrun",
    "virtio-devices": "vblk_selftest_overrun",
    "virtio-queue": "virtq_selftest_overrun",
    "vmm-memory": "vmm_mem_selftest_overrun",
}


@pytest.fixture(scope="module")
def tree():
    """Every C package over its instrumented core."""
    with sanitize.staged() as path:
        yield path


@pytest.fixture
def python(tree):
    """Run a script in an interpreter that has the instrumented cores."""

    def run(script, *arguments):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        env = sanitize.environment(tree)
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


def test_every_core_is_here():
    """A package that gets a C core must say what its deliberate overrun is called."""
    assert set(OVERRUNS) == set(sanitize.CORES)


@pytest.mark.parametrize("package", sanitize.CORES)
def test_suite_raises_no_report(package, tree):
    """All tests of the package that this machine can run pass on the instrumented core, without a report."""
    outcome = sanitize.run_suite(package, tree, long=LONG)
    if not outcome.passed or (LONG and outcome.hung):
        pytest.fail(outcome.output, pytrace=False)
    assert (
        f"{sanitize.import_name(package)}._core"
        in outcome.output.rpartition("instrumented: ")[2].split("\n")[0]
    )
    if outcome.hung:
        print(outcome.output)
        pytest.skip(f"no report, but these never came back under ASan: {', '.join(outcome.hung)}")


TRIAL = '''
import time
import pytest
from vmm_memory import GuestMemoryMmap

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    """One of them does not come back."""
    GuestMemoryMmap.from_ranges([(0, 4096)])
    if number == {hangs}:
        time.sleep(600)
    assert number != {fails}
'''


@pytest.mark.parametrize("fails", [None, 0, 3])
def test_a_hang_ends(tree, tmp_path, monkeypatch, fails):
    """The run is taken up behind it in what time is left; what failed before or after is not forgotten."""
    limits, run = [], bounded.run
    monkeypatch.setattr(bounded, "run", lambda *args, **how: limits.append(how["limit"]) or run(*args, **how))
    file = tmp_path / "test_trial.py"
    file.write_text(TRIAL.format(hangs=1, fails=fails))
    outcome = sanitize.run_tests(["--rootdir", str(tmp_path), str(file)], tree, sanitize.ADDRESS, (10, 300))
    assert (outcome.passed, outcome.hung) == (fails is None, ["test_trial.py::test_it[1]"])
    assert "Timeout (0:00:10)!" in outcome.output
    assert len(limits) == 2
    assert limits[1] <= limits[0] - 10
    assert f'File "{file}", line 11 in test_it' in outcome.output
    failed = re.findall(r"^FAILED \S+::test_it\[(\d)\]", outcome.output, re.MULTILINE)
    assert failed == ([] if fails is None else [str(fails)])


@pytest.mark.parametrize("package", OVERRUNS)
def test_overrun_is_reported(package, python):
    """One byte past a heap block ends the process, with a report that names kind, size and function."""
    function = OVERRUNS[package]
    done = python(
        f"from {sanitize.import_name(package)}._core import lib; lib.{function}(); print('survived')"
    )
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "WRITE of size 1" in done.stderr
    assert re.search(rf"#0 0x[0-9a-f]+ in {function} ", done.stderr), done.stderr


@pytest.mark.parametrize("package", sanitize.CORES)
def test_undefined_behaviour_ends_the_process(package):
    """Every check that UBSan put into the core is of the kind that does not return."""
    command = ["nm", "-D", "--undefined-only", sanitize.build(package)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    handlers = {symbol for symbol in symbols if symbol.startswith("__ubsan_handle_")}
    assert handlers
    assert all(handler.endswith("_abort") for handler in handlers)


STRAY = """
import sys
from vmm_memory import GuestRegionMmap
from vmm_memory._core import ffi, lib
from vmm_memory.testing import guarded_region
kind, start, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
region = (guarded_region if kind == "guarded" else getattr(GuestRegionMmap, kind))(0x1000, 0x2000)
# A map that lies: it claims a page more at each end than is mapped.
table = ffi.new("struct vmm_region *", dict(base=0, size=0x4000))
table.host = ffi.cast("uint8_t *", region.host_address - 0x1000)
claimed = ffi.new("struct vmm_map *", dict(abi=lib.VMM_MAP_ABI, count=1, regions=table))
buffer = ffi.new("uint8_t[]", size)
print(lib.vmm_read(claimed, start, buffer, size))
"""


@pytest.mark.parametrize("kind", ["guarded", "memfd", "anonymous"])
@pytest.mark.parametrize(
    ("start", "size", "survives"),
    [
        pytest.param(0x1000, 0x2000, True, id="whole"),
        pytest.param(0xFFF, 1, False, id="byte-below"),
        pytest.param(0x3000, 1, False, id="byte-above"),
        pytest.param(0xFF8, 16, False, id="across-start"),
        pytest.param(0x2FFF, 2, False, id="across-end"),
    ],
)
def test_guard_pages_stop_the_core(kind, start, size, survives, python):
    """The C core itself, made to believe in a larger region, faults at the first byte outside."""
    done = python(STRAY, kind, start, size)
    assert (done.returncode, done.stdout) == ((0, "0\n") if survives else (-signal.SIGSEGV, "")), done.stderr


def test_another_core_is_noticed(tree, python):
    """The check that the core under test is the instrumented one refuses any other."""
    done = python(
        "import sys, types, sanitize\n"
        "from virtio_queue import Queue\n"
        "print(sanitize.instrumented())\n"
        "sys.modules['kvm_ioctls._core'] = types.SimpleNamespace(__file__='/elsewhere/_core.abi3.so')\n"
        "sanitize.instrumented()"
    )
    assert done.stdout == "['virtio_queue._core', 'vmm_memory._core']\n"
    assert (
        f"kvm_ioctls._core is /elsewhere/_core.abi3.so, not the instrumented one under {tree}" in done.stderr
    )
