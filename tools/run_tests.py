"""`make test`: every test, each kind where it can run; `--long` for full counts and a dated log.

Pure tests and those for any /dev/kvm run here. What needs a complete KVM runs here too if this
machine has one, else in an emulated host, beside the others: one host for the whole shard. A
skipped kvm_full test fails the run. Skips are counted and explained at the end of each shard.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import arm64
import attrs
import guest
import vmm_testhost
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import measure

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("packages", "tests", "bench")
TOOLS = {
    "iasl": "acpica-tools",
    "dtc": "device-tree-compiler",
    "cpuid": "cpuid",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "tcpdump": "tcpdump",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu",
    # The emulated host installs its own; here they are part of the one command for who is not root.
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "xz": "xz-utils",
    "zstd": "zstd",
}
# Pure tests whose result could differ there: byte layouts of structures, decoding of the run page.
PORTABLE = tuple(f"packages/kvm-ioctls/tests/test_{name}.py" for name in ("record", "wire"))
FAILURE_CHARACTERS = 4000
LAST_SHOWN = 4  # lines of a failure at the very end
LAST_LINES = 120  # of a shard that died; pytest-timeout's stacks of all threads fit
STRAGGLERS = 30.0  # seconds in which a shard's last lines are read once it has ended
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@attrs.frozen
class Shard:
    """Some tests in one pytest process."""

    name: str
    select: str
    emulated: bool
    require: Sequence[str] = ()
    foreign: bool = False  # in the arm64 host


def plan(*, long: bool) -> list[list[Shard]]:
    """Return lanes of shards: one lane's run after each other, beside those of the other.

    A complete KVM also gets the tests that any KVM runs where this machine has none, and in a long run.
    """
    try:
        report = measure()
        complete, any_kvm = report.complete, True
    except HypervisorUnavailableError:
        complete = any_kvm = False
    full = "kvm_full or root_net" if any_kvm and not long else "kvm_full or root_net or kvm"
    here = "not (kvm_full or root_net or testhost or arm64)" + ("" if any_kvm else " and not kvm")
    return [
        [Shard("here", here, emulated=False, require=["kvm"] if any_kvm else [])],
        [
            Shard("complete KVM", full, emulated=not complete, require=["kvm_full"]),
            arm64_shard(),
            Shard("emulated host", "testhost", emulated=False),
        ],
    ]


def arm64_shard() -> Shard:
    """Return the tests for AArch64; in an emulated host, if this machine is none, with PORTABLE."""
    foreign = platform.machine() != "aarch64"
    select = "arm64 or pure" if foreign else "arm64"
    return Shard("arm64", select, emulated=foreign, require=["arm64"], foreign=foreign)


def known_to_apt(package: str) -> bool:
    """Tell whether apt has lists that name the package."""
    shown = subprocess.run(["/usr/bin/apt-cache", "show", package], check=False, capture_output=True)
    return shown.returncode == 0


def ensure_tools() -> None:
    """Install what the tests use as oracles, or say how."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=PATH)})
    if not missing:
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        update = "" if known_to_apt(missing[0]) else "apt-get update && "
        sys.exit(f"test: missing tools; run as root: {update}apt-get install -y {' '.join(missing)}")
    print(f"test: installing {' '.join(missing)} …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def files_with(select: str) -> list[str]:
    """Return the files that hold such tests: collecting all of them inside would cost a minute."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-m", select, *FOLDERS]
    output = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout
    lines = (line.rpartition(":")[0] for line in output.splitlines())
    return [line for line in lines if line.endswith(".py")]


class Run:
    """One shard: its output is shown line by line with its name."""

    def __init__(self, shard: Shard, results: Path, log: Path | None, extra: Sequence[str]) -> None:
        self.shard = shard
        self.report = results / f"{shard.name.replace(' ', '-')}.xml"
        self.status = -1
        self.seconds = 0.0
        self._log = log
        self._extra = extra
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def _command(self) -> list[str]:
        require = [word for kind in self.shard.require for word in ("--require", kind)]
        # In the emulated host a test takes seconds: each is named as it ends.
        detail = "-v" if self.shard.emulated else "-q"
        interpreter = "python3" if self.shard.foreign else sys.executable
        pytest = [interpreter, "-m", "pytest", detail, "-m", self.shard.select, *require, *self._extra]
        pytest += [f"--junitxml={self.report}", "-o", f"cache_dir={self.report.with_suffix('.cache')}"]
        named = any(Path(word.split("::")[0]).exists() for word in self._extra)
        if not self.shard.emulated:
            return pytest if named else [*pytest, *FOLDERS]
        if self.shard.foreign:
            testhost = arm64.arguments(memory=2048, writable=[self.report.parent])
            return [*testhost, "--", *pytest, *([] if named else [*files_with("arm64"), *PORTABLE])]
        files = [] if named else files_with(self.shard.select)
        testhost = [sys.executable, "-m", "vmm_testhost", "--memory", "6144"]
        return [*testhost, "--writable", str(self.report.parent), "--", *pytest, *files]

    def run(self) -> None:
        """Run it to its end."""
        start = time.monotonic()
        command = self._command()
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=pipe, stderr=subprocess.STDOUT, errors="replace"
        )
        assert process.stdout is not None
        reader = threading.Thread(target=self._show_all, args=(process.stdout,), daemon=True)
        reader.start()
        self.status = process.wait()
        # A process that the shard left behind may hold its output for ever.
        reader.join(STRAGGLERS)
        if reader.is_alive():
            self._show("something that this shard started still runs and holds its output")
        self.seconds = time.monotonic() - start

    def _show_all(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._show(line.rstrip())

    def _show(self, line: str) -> None:
        self._last.append(line)
        text = f"[{self.shard.name}] {line}"
        print(text, flush=True)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(text + "\n")

    def counts(self) -> tuple[int, int, int]:
        """Return (passed, failed, skipped); a shard that left no report failed once."""
        if not self.report.exists():
            return 0, 1, 0
        total = failed = skipped = 0
        for suite in ET.parse(self.report).getroot().iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
        return total - failed - skipped, failed, skipped

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield (test, the end of what it reported)."""
        if not self.report.exists():
            yield "no test", "\n".join([*self._last, f"the shard left no report, and status {self.status}"])
            return
        for case in ET.parse(self.report).getroot().iter("testcase"):
            for result in (*case.iter("failure"), *case.iter("error")):
                yield f"{case.get('classname')}::{case.get('name')}", result.text or ""


def empty_folder(name: str) -> Path:
    """Return build/NAME, made anew."""
    folder = ROOT / "build" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="full counts, and a dated log under logs/")
    parser.add_argument("extra", nargs="*", help="further pytest arguments or test paths")
    options = parser.parse_args()
    # In the background of a shell script interrupts are ignored, also by what the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["VMM_HYPOTHESIS_PROFILE"] = "long" if options.long else "ci"
    log = None
    if options.long:
        log = ROOT / "logs" / f"test-long-{time.strftime('%Y-%m-%d-%H%M%S')}.log"
        log.parent.mkdir(exist_ok=True)
    ensure_tools()
    try:
        vmm_testhost.prepare()
        guests = guest.prepare()
        if arm64_shard().foreign:
            arm64.prepare()
            guest.prepare_arm64()
    except (vmm_testhost.SetupError, guest.GuestError, arm64.CrossBuildError) as error:
        sys.exit(f"test: {error}")
    results = empty_folder("test-results")
    kernels = empty_folder("test-kernels")
    for prepared in guests:
        (kernels / f"vmlinuz-{prepared.version}").symlink_to(prepared.image)
    os.environ["VMM_TEST_KERNELS"] = str(kernels)
    if options.long:
        options.extra.append("--timeout=3600")
    lanes = [[Run(shard, results, log, options.extra) for shard in lane] for lane in plan(long=options.long)]
    threads = [threading.Thread(target=follow, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary([run for lane in lanes for run in lane])


def follow(lane: Sequence[Run]) -> None:
    """Run one shard after the other."""
    for run in lane:
        run.run()


def stack(lines: Sequence[str]) -> list[str]:
    """Return the lines of stacks, as pytest-timeout prints them, that name files of tests."""
    return [line for line in lines if line.startswith('  File "') and "/test" in line and ".venv" not in line]


def summary(runs: Sequence[Run]) -> int:
    """Print what came out; return the exit status."""
    failures = [(run.shard.name, test, text) for run in runs for test, text in run.failures()]
    for shard, test, text in failures:
        print(f"\n[{shard}] {test}\n{text[-FAILURE_CHARACTERS:]}")
    print()
    ok = True
    totals = [0, 0, 0]
    for run in runs:
        counts = run.counts()
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        # 5: no test of this kind was selected, which is fine for a kind nobody wrote yet.
        ok = ok and run.status in (0, 5)
        where = "emulated host" if run.shard.emulated else "this machine"
        passed, failed, skipped = counts
        outcome = f"{passed} passed, {failed} failed, {skipped} skipped, {run.seconds:.0f} s"
        print(f"{run.shard.name:14} on {where}: {outcome}")
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    # Last, because the end is what a log that was cut still shows.
    for shard, test, text in failures:
        lines = text.splitlines()
        errors = [line for line in lines if line.startswith("E  ")]
        print(f"FAILED [{shard}] {test}", *errors[:4], *stack(lines)[-8:], *lines[-LAST_SHOWN:], sep="\n    ")
    return 0 if ok and not totals[1] else 1


if __name__ == "__main__":
    sys.exit(main())
