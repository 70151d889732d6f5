"""docs/kvm-coverage.md: nothing of the kernel's header escapes it, and it says what is true."""

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kvm_ioctls import Cap, ExitReason
from kvm_ioctls._ffi import lib

TESTS = Path(__file__).parent
ROOT = TESTS.parents[2]
PAGE = ROOT / "docs/kvm-coverage.md"
UAPI = json.loads((TESTS / "uapi.json").read_text())
EXECUTED = json.loads((TESTS / "executed.json").read_text())
OTHERS = re.compile(r"S390|PPC|SPAPR|MIPS|IRQ_MPIC|IRQ_XICS|SW_TLB|PAPR|OSI|EPR|DCR|WATCHDOG|LOONGARCH")
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not in the repository")


def cells():
    """The table: name to the cells of its row."""
    rows = re.findall(r"^\| `(KVM_\w+)` \| (.*) \|$", PAGE.read_text(), flags=re.M)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_page_is_what_the_code_says():
    """The committed page is what the tool makes of the code."""
    command = [sys.executable, "tools/kvm_coverage.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=240).returncode == 0


@pytest.mark.parametrize("kind", ["ioctls", "exits", "caps"])
def test_every_name_of_the_header_has_a_row(kind):
    """The table knows what the newest header knows, and says something of each architecture."""
    table = cells()

    assert set(UAPI[kind]) <= set(table)
    assert len(UAPI[kind]) > 40
    known = {"executed", "layout", "raw", "\N{EN DASH}"}
    assert all(set(table[name][:3]) <= known for name in UAPI[kind])


def test_header_of_this_machine_is_in_the_table():
    """Exits are never taken back: what an older header has is in the table."""
    header = Path("/usr/include/linux/kvm.h")
    if not header.exists():
        pytest.skip("no <linux/kvm.h> (package linux-libc-dev)")
    found = re.findall(r"^#define (KVM_EXIT_\w+)\s+\d+", header.read_text(), flags=re.M)
    exits = {name for name in found if not re.match(r"KVM_EXIT_(IO_|HYPERV_|XEN_H)", name)}

    assert len(exits) > 30
    assert exits <= set(cells())


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_numbers_are_the_headers(arch):
    """Each ioctl number of ours is the one the compiler made of the newest header for that architecture."""
    prefix = {"x86_64": "X86_64_", "aarch64": "ARM64_", "riscv64": "RISCV64_"}[arch]
    checked = 0
    for name, numbers in UAPI["ioctls"].items():
        short = name.removeprefix("KVM_")
        ours = getattr(lib, f"KX_{prefix}{short}", None) or getattr(lib, f"KX_{short}", None)
        if ours is not None and arch in numbers and not _x86_struct(short, arch):
            assert ours == numbers[arch], name
            checked += 1
    assert checked > 60


def _x86_struct(short, arch):
    """Ioctls whose struct another architecture has under the same name with another size, and no use."""
    return arch != "x86_64" and re.fullmatch(r"[GS]ET_(REGS|SREGS|FPU)|SET_PMU_EVENT_FILTER", short)


def test_names_are_the_headers():
    """Capabilities and exits have the header's numbers, and none of our architectures' is missing."""
    for prefix, enum, kind in (("KVM_CAP_", Cap, "caps"), ("KVM_EXIT_", ExitReason, "exits")):
        header = {
            name.removeprefix(prefix): numbers["x86_64"]
            for name, numbers in UAPI[kind].items()
            if "x86_64" in numbers
        }
        assert {m.name: m.value for m in enum if header.get(m.name) != m.value} == {}
        assert [name for name in header if name not in enum.__members__ and not OTHERS.search(name)] == []


def test_what_executes_exists():
    """Each test of the record is in its file; conftest.py fails the test when it executes less."""
    for record, least in ((EXECUTED["x86_64"], 230), (EXECUTED["aarch64"], 95)):
        assert len(record) > least
        for name, (test, host) in record.items():
            file, _, function = test.partition("::")
            assert f"def {function.partition('[')[0]}(" in (TESTS / file).read_text(), name
            assert host in ("any KVM", "complete KVM", "some KVM", "arm64")


def test_a_test_that_executes_less_than_the_record_says_fails(pytester):
    """Whether it passes or is skipped; but a test of what only some KVM has may be skipped."""
    for name in ("conftest.py", "uapi.json"):
        shutil.copy(TESTS / name, pytester.path)
    hosts = {"idle": "any KVM", "skipped": "any KVM", "rare": "some KVM", "rare_idle": "some KVM"}
    names = zip(UAPI["ioctls"], hosts.items(), strict=False)
    record = {name: [f"test_made.py::test_{test}", host] for name, (test, host) in names}
    (pytester.path / "executed.json").write_text(json.dumps({platform.machine(): record}))
    skip = "    pytest.skip('it has none')"
    bodies = {"idle": "    pass", "skipped": skip, "rare": skip, "rare_idle": "    pass", "other": skip}
    tests = [f"def test_{test}():\n{body}" for test, body in bodies.items()]
    pytester.makepyfile(test_made="\n".join(["import pytest", *tests]))

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(failed=3, skipped=2)
    result.stdout.fnmatch_lines(
        [f"*says that test_made.py::test_skipped executes {list(UAPI['ioctls'])[1]};*"]
    )


@pytest.mark.kvm
@pytest.mark.parametrize(("host", "verdict"), [("some KVM", {"passed": 1}), ("any KVM", {"failed": 1})])
def test_a_kvm_without_a_capability_is_not_asked_for_it(pytester, host, verdict):
    """Where the table says that only some KVM has it; the test has to have asked."""
    for name in ("conftest.py", "uapi.json"):
        shutil.copy(TESTS / name, pytester.path)
    record = {"KVM_CAP_ARM_VM_IPA_SIZE": ["test_made.py::test_asks", host]}
    (pytester.path / "executed.json").write_text(json.dumps({platform.machine(): record}))
    body = "    with Kvm() as kvm:\n        assert not kvm.check_extension(Cap.ARM_VM_IPA_SIZE)"
    pytester.makepyfile(test_made=f"from kvm_ioctls import Cap, Kvm\n\ndef test_asks():\n{body}")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(**verdict)


@pytest.mark.parametrize(("arch", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_what_nobody_executes_says_why(arch, column):
    """The page has a reason for each ioctl and exit; a capability named there is one that no host reports."""
    unexecuted = {
        name: row[3]
        for name, row in cells().items()
        if row[column] in ("layout", "raw") and not name.startswith("KVM_CAP_")
    }
    for name, text in unexecuted.items():
        own = arch + ":" in text if column else "x86_64:" in text
        assert own, f"{name}: {text!r}"
        reason = text.partition(f"{arch}: ")[2].partition(";")[0]
        named = re.fullmatch(r"no `(KVM_CAP_\w+)`", reason)
        assert named is None or cells()[named[1]][column] in ("layout", "raw"), name
