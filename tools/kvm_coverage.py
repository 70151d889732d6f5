"""docs/kvm-coverage.md out of the code: what of the newest linux/kvm.h is wrapped, proven and executed.

Usage: python tools/kvm_coverage.py [--check | --record]   (`make kvm-coverage` records and writes)

--record runs the package's tests on this machine's /dev/kvm and in the emulated hosts, and notes which test
executes what. The names and numbers of the header are committed data (tools/kvm_uapi.py).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import arm64
import kvm_ioctls
from kvm_ioctls import Cap, ExitReason
from kvm_missing import MISSING

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/kvm-coverage.md"
TESTS = ROOT / "packages/kvm-ioctls/tests"
UAPI = json.loads((TESTS / "uapi.json").read_text())
RECORD = json.loads((TESTS / "executed.json").read_text())
SOURCES = Path(kvm_ioctls.__file__).parent
ARCHES = ("x86_64", "aarch64", "riscv64")
FOLDERS = {"_x86_64": "x86_64", "_aarch64": "aarch64", "_riscv64": "riscv64"}
ELSEWHERE = re.compile(
    r"KVM_(EXIT_|CAP_)?(S390|PPC|SPAPR|MIPS|PAPR|OSI|EPR|DCR|LOONGARCH|WATCHDOG|ALLOCATE_RMA|DIRTY_TLB)"
)
ONLY = (
    ("aarch64", re.compile(r"KVM_(EXIT_|CAP_)?ARM_")),
    ("riscv64", re.compile(r"KVM_(EXIT_|CAP_)?RISCV_")),
    (
        "x86_64",
        re.compile(
            r"KVM_(EXIT_|CAP_)?(X86_|HYPERV|XEN|TDX|SNP_|AP_RESET|TPR_|SET_TPR|IOAPIC|IO$|NMI|IRQ_WINDOW|NOTIFY|HLT$)"
            r"|KVM_(CREATE_PIT|REINJECT|TPR_|SET_VAPIC|SMI|SET_TSS|SET_IDENTITY|.*_TSC_KHZ|KVMCLOCK|MEMORY_ENCRYPT)"
            # These stand in the part of the header that all architectures share, and nowhere else.
            r"|KVM_([GS]ET_(IRQCHIP|CLOCK|REGS|SREGS|FPU|NR_MMU_PAGES)|SET_BOOT_CPU_ID|TRANSLATE|SET_PMU_EVENT_FILTER)$"
        ),
    ),
)
NOT_ON = {("aarch64", "KVM_INTERRUPT"), ("riscv64", "KVM_CREATE_IRQCHIP")}


def wrapped() -> dict[str, set[str]]:
    """Which architectures have a method for an ioctl: by the folder of the code that uses its number."""
    found: dict[str, set[str]] = {"KVM_RUN": set(ARCHES)}
    for path in SOURCES.rglob("*.py"):
        arches = {FOLDERS[path.parent.name]} if path.parent.name in FOLDERS else set(ARCHES)
        for name in re.findall(r"lib\.KX_(\w+)", path.read_text()):
            found.setdefault("KVM_" + re.sub(r"^(ARM64|RISCV64)_", "", name), set()).update(arches)
    return found


def belongs(name: str, arch: str) -> bool:
    """Whether an architecture of ours can have it."""
    if ELSEWHERE.match(name) or (arch, name) in NOT_ON:
        return False
    return all(arch == only for only, pattern in ONLY if pattern.match(name))


def status(name: str, arch: str, numbers: dict[str, int], known: set[str]) -> str:
    """One cell of the table."""
    if not belongs(name, arch) or arch not in numbers:
        return "–"
    if name in RECORD.get(arch, ()):
        return "executed"
    return "layout" if arch in known else "raw"


def why(name: str, cells: dict[str, str]) -> str:
    """Who executes it, and why nobody does."""
    parts = []
    for arch, what in cells.items():
        if what == "executed":
            test, host = RECORD[arch][name]
            parts.append(f"`{test}`, {host}")
        elif what in ("layout", "raw") and (reason := MISSING.get(arch, {}).get(name)):
            text = f"no `{reason}`" if reason.startswith("KVM_") else reason
            parts.append(f"{arch}: {text}")
    return "; ".join(parts)


def rows(data: dict[str, dict[str, int]], known: dict[str, set[str]]) -> list[str]:
    """The lines of one table."""
    lines = ["| name | x86_64 | aarch64 | riscv64 | executed by, or why not |", "|---|---|---|---|---|"]
    for name, numbers in data.items():
        cells = {arch: status(name, arch, numbers, known.get(name, set())) for arch in ARCHES}
        lines.append(f"| `{name}` | {' | '.join(cells.values())} | {why(name, cells)} |")
    return lines


def page() -> str:
    """The whole page."""
    every = set(ARCHES)
    exits = {f"KVM_EXIT_{reason.name}": every for reason in ExitReason}
    caps = {f"KVM_CAP_{cap.name}": every for cap in Cap}
    parts = [HEAD.format(kernel=UAPI["kernel"], x86_64=counts("x86_64"), aarch64=counts("aarch64"))]
    for key, title, known in (
        ("ioctls", "Ioctls", wrapped()),
        ("exits", "Exits", exits),
        ("caps", "Capabilities", caps),
    ):
        parts.append("\n".join([f"## {title}", "", *rows(UAPI[key], known)]))
    return "\n\n".join(parts) + "\n"


def counts(arch: str) -> str:
    """How many of each kind that the architecture has are executed."""
    texts = []
    for key, title in (("ioctls", "ioctls"), ("exits", "exits"), ("caps", "capabilities")):
        had = [name for name, numbers in UAPI[key].items() if belongs(name, arch) and arch in numbers]
        texts.append(f"{sum(name in RECORD.get(arch, ()) for name in had)} of {len(had)} {title}")
    return ", ".join(texts)


HEAD = """# What of KVM is covered

Every ioctl, exit and capability of Linux {kernel}'s `<linux/kvm.h>`, by architecture. `tools/kvm_coverage.py`
makes this page of the code, of the committed names and numbers of the header, and of the record of which
test executes what; do not edit it. Executed on x86-64: {x86_64};
on arm64: {aarch64}.

- **executed**: a test in `packages/kvm-ioctls/tests` does it and the kernel does not refuse; for a
  capability, the host reports it. The test fails when it does not.
- **layout**: there is a method, class or name; sizes, offsets and numbers are proven by compilers against the
  headers of several kernels, and hand-made bytes go both ways. No test of this package executes it: no host
  at hand reports the capability or gives the occasion, as the last column says. A capability with this
  status is one that no host reports. There is no riscv64 host.
- **raw**: reachable by number: `raw_ioctl`, a plain int for `check_extension`, `Unknown` with its payload for
  an exit.
- **–**: the architecture has no such thing.

Hosts: *any KVM* is whatever `/dev/kvm` the machine has, *complete KVM* the emulated host of
`vmm-testhost` (Debian's kernel on QEMU's SVM), *arm64* that of `vmm-testhost --arch aarch64`. *some KVM*
is one that has it: where a machine's KVM does not, the test is skipped, or asks for the capability and hears
that there is none. On the other hosts a test of this page that is skipped has failed."""


def record() -> None:
    """Run the tests on all hosts and note for each name the first test that executes it."""
    arm64.prepare()
    with tempfile.TemporaryDirectory() as scratch:
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        ours = [sys.executable, *pytest, str(TESTS), "-m"]
        inside = [sys.executable, "-m", "vmm_testhost", "--writable", scratch, "--"]
        foreign = [*arm64.arguments(memory=2048, writable=[Path(scratch)]), "--"]
        here = _names_by_test([], [*ours, "kvm and not kvm_full"], Path(scratch, "here"))
        there = _names_by_test(inside, [*ours, "kvm_full"], Path(scratch, "full"))
        again = _names_by_test(inside, [*ours, "kvm and not kvm_full"], Path(scratch, "again"))
        aarch64 = ["python3", *pytest, str(TESTS / "test_aarch64.py"), "-m", "arm64"]
        arm = _names_by_test(foreign, aarch64, Path(scratch, "arm64"))
    # What only this machine's KVM did must not be asked of others: see _optional.
    common = {test: names & again[test] for test, names in here.items() if test in again}
    rare = {
        test: {name for name in names if _optional(name, again.get(test))} for test, names in here.items()
    }
    x86_64 = _first("some KVM", rare) | _first("complete KVM", there) | _first("any KVM", common)
    ordered = {"x86_64": x86_64, "aarch64": _first("arm64", arm)}
    (TESTS / "executed.json").write_text(json.dumps(ordered, indent=0, sort_keys=True) + "\n")


def _optional(name: str, elsewhere: set[str] | None) -> bool:
    """Whether a test may leave it out: it was skipped elsewhere, or did not find the capability there."""
    return elsewhere is None or (name.startswith("KVM_CAP_") and name not in elsewhere)


def _first(host: str, names_by_test: dict[str, set[str]]) -> dict[str, list[str]]:
    """Return the first test of each name, with the host."""
    found: dict[str, list[str]] = {}
    for test, names in names_by_test.items():
        for name in names:
            found.setdefault(name, [test, host])
    return found


def _names_by_test(prefix: list[str], command: list[str], log: Path) -> dict[str, set[str]]:
    """Run tests that note what they execute."""
    subprocess.run([*prefix, "env", f"KVM_IOCTLS_RECORD={log}", *command], cwd=ROOT, check=True)
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return {test: set(names) for test, names in lines}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when the page is out of date"
    )
    parser.add_argument("--record", action="store_true", help="run the tests first, on all hosts")
    options = parser.parse_args()
    if options.record:
        record()
        RECORD.update(json.loads((TESTS / "executed.json").read_text()))
    if options.check:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
