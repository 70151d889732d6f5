"""docs/kvm-coverage.md out of the code: what of the newest linux/kvm.h is wrapped, proven and executed.

Usage: python tools/kvm_coverage.py [--check | --record]   (`make kvm-coverage` records and writes)

--record runs the package's tests on this machine's /dev/kvm and in the emulated host, and notes which test
executes what. The names and numbers of the header are committed data (tools/kvm_uapi.py).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kvm_ioctls
from kvm_ioctls import Cap, ExitReason

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/kvm-coverage.md"
TESTS = ROOT / "packages/kvm-ioctls/tests"
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
        ),
    ),
)


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
    if ELSEWHERE.match(name):
        return False
    return all(arch == only for only, pattern in ONLY if pattern.match(name))


def status(
    name: str, arch: str, numbers: dict[str, int], known: set[str], executed: dict[str, list[str]]
) -> str:
    """One cell of the table."""
    if not belongs(name, arch) or arch not in numbers:
        return "–"
    if arch == "x86_64" and name in executed:
        return "executed"
    return "layout" if arch in known else "raw"


def rows(
    data: dict[str, dict[str, int]], known: dict[str, set[str]], executed: dict[str, list[str]]
) -> list[str]:
    """The lines of one table."""
    lines = ["| name | x86_64 | aarch64 | riscv64 | executed by |", "|---|---|---|---|---|"]
    for name, numbers in data.items():
        cells = [status(name, arch, numbers, known.get(name, set()), executed) for arch in ARCHES]
        test, host = executed.get(name, ["", ""])
        where = f"`{test}`, {host}" if cells[0] == "executed" else ""
        lines.append(f"| `{name}` | {' | '.join(cells)} | {where} |")
    return lines


def page() -> str:
    """The whole page."""
    uapi = json.loads((TESTS / "uapi.json").read_text())
    executed = json.loads((TESTS / "executed.json").read_text())
    every = set(ARCHES)
    exits = {f"KVM_EXIT_{reason.name}": every for reason in ExitReason}
    caps = {f"KVM_CAP_{cap.name}": every for cap in Cap}
    parts = [HEAD.format(kernel=uapi["kernel"], counts=counts(uapi, executed))]
    for key, title, known in (
        ("ioctls", "ioctls", wrapped()),
        ("exits", "Exits", exits),
        ("caps", "Capabilities", caps),
    ):
        parts.append("\n".join([f"## {title[0].upper()}{title[1:]}", "", *rows(uapi[key], known, executed)]))
    return "\n\n".join(parts) + "\n"


def counts(uapi: dict[str, dict[str, dict[str, int]]], executed: dict[str, list[str]]) -> str:
    """How many of each kind are executed."""
    kinds = (("ioctls", "ioctls"), ("exits", "exits"), ("caps", "capabilities"))
    texts = [
        f"{sum(name in executed for name in uapi[key])} of {len(uapi[key])} {text}" for key, text in kinds
    ]
    return ", ".join(texts)


HEAD = """# What of KVM is covered

Every ioctl, exit and capability of Linux {kernel}'s `<linux/kvm.h>`, by architecture. `tools/kvm_coverage.py`
makes this page of the code, of the committed names and numbers of the header, and of the record of which
test executes what; do not edit it. Executed on x86-64: {counts}.

- **executed**: a test in `packages/kvm-ioctls/tests` does it and the kernel does not refuse; for a
  capability, the host reports it. The test fails when it does not.
- **layout**: there is a method, class or name; sizes, offsets and numbers are proven by compilers against the
  headers of several kernels, and hand-made bytes go both ways. No test of this package executes it:
  on x86-64 neither the machine's `/dev/kvm` (kvm_pvm) nor the emulated host (Debian's kernel on QEMU's SVM)
  reports the capability or gives the occasion; no arm64 or riscv64 host runs these tests.
- **raw**: reachable by number: `raw_ioctl`, a plain int for `check_extension`, `Unknown` with its payload for
  an exit.
- **–**: the architecture has no such thing.

Hosts: *any KVM* is whatever `/dev/kvm` the machine has, *complete KVM* the emulated host of
`vmm-testhost`."""


def record() -> None:
    """Run the tests on both hosts and note for each name the first test that executes it."""
    with tempfile.TemporaryDirectory() as scratch:
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS), "-m"]
        inside = [sys.executable, "-m", "vmm_testhost", "--writable", scratch, "--"]
        here = _names_by_test([], [*pytest, "kvm and not kvm_full"], Path(scratch, "here"))
        there = _names_by_test(inside, [*pytest, "kvm_full"], Path(scratch, "full"))
        again = _names_by_test(inside, [*pytest, "kvm and not kvm_full"], Path(scratch, "again"))
    executed: dict[str, list[str]] = {}
    for test, names in here.items():
        # What only this machine's KVM did must not be asked of others; a test that was skipped there may.
        for name in sorted(names & again.get(test, names)):
            executed.setdefault(name, [test, "any KVM"])
    for test, names in there.items():
        for name in sorted(names):
            executed.setdefault(name, [test, "complete KVM"])
    ordered = dict(sorted(executed.items()))
    (TESTS / "executed.json").write_text(json.dumps(ordered, indent=0) + "\n")


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
    parser.add_argument("--record", action="store_true", help="run the tests first, on both hosts")
    options = parser.parse_args()
    if options.record:
        record()
    if options.check:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
