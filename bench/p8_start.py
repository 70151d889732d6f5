"""P8: CPU time from process start to the guest's first instructions, beside QEMU's microvm."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
from harness import Options, Row, compare, interleave
from linux_loader.testing import SegmentSpec, build_elf, pvh_note
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import KvmReport, measure

GOAL_MS: Final = 80.0
_ENTRY: Final = 0x10_0000
_SAY: Final = b"!"
# mov dx, 0x3f8; mov al, '!'; out dx, al; then halt for good, in 32-bit mode
_CODE: Final = b"\x66\xba\xf8\x03\xb0" + _SAY + b"\xee\xfa\xf4\xeb\xfd"
_MEMORY: Final = "128M"
MICROVM: Final = "QEMU microvm"
# An AMD host's KVM offers this register of Intel's and may refuse it to a guest; QEMU 7.2 then aborts.
_CPU: Final = "host,arch-capabilities=off"


def cpu_clock(pid: int) -> int:
    """The clock that counts the CPU time of all threads of a process (clock_getcpuclockid)."""
    return ~pid << 3 | 2


def cpu_ms_until_first_byte(command: Sequence[str], environment: dict[str, str]) -> float:
    """Start `command`, wait for the guest's byte on its standard output, and return its CPU time until then.

    Raises:
        RuntimeError: it ended without it.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            byte = os.read(process.stdout.fileno(), 1)
            used = time.clock_gettime_ns(cpu_clock(process.pid)) if byte else 0
        finally:
            process.kill()
        if byte != _SAY:
            raise RuntimeError(f"{command[0]} said {byte!r}: {process.stderr.read().decode()[-500:]}")
    return used / 1e6


def tiny_kernel(file: Path) -> None:
    """Write an ELF file with a PVH entry whose first act is to write a byte to the serial port."""
    segment = SegmentSpec(paddr=_ENTRY, data=_CODE)
    file.write_bytes(build_elf([segment], entry=_ENTRY, notes=[pvh_note(_ENTRY)]))


def believe_in_kvm(cache: Path) -> bool:
    """Write what `vmm run` remembers of its measurement of this machine's KVM, saying that it is complete.

    Our guest needs a few instructions, which any KVM runs; `vmm run --host kvm` rightly refuses a KVM that
    is not complete, because it does not know the guest. What is timed is then the command itself, as on a
    machine with a complete KVM and a warm cache.

    Returns:
        False where there is no KVM at all.
    """
    from vmm_reference import _host

    try:
        report = measure()
    except HypervisorUnavailableError:
        return False
    complete: KvmReport = attrs.evolve(report, ns_per_instruction=1.0, cpuid_virtualised=True)
    file = cache / "vmm" / "kvm-probe.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"boot_id": _host._boot_id(), "report": attrs.asdict(complete)}))
    return True


def run(options: Options) -> list[Row]:
    """Measure the command, QEMU and the interpreter itself."""
    with tempfile.TemporaryDirectory() as scratch:
        kernel = Path(scratch) / "kernel"
        tiny_kernel(kernel)
        if not believe_in_kvm(Path(scratch)):
            print("P8: there is no /dev/kvm here")
            return []
        environment = {**os.environ, "XDG_CACHE_HOME": scratch}
        # As an installed package: with its bytecode, at the latest after the round that does not count.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        ours = [str(Path(sys.executable).with_name("vmm")), "run", "--host", "kvm", "--serial", "tty"]
        ours += ["--kernel", str(kernel), "--memory", f"size={_MEMORY}", "--cmdline", ""]
        python = [sys.executable, "-c", f"import os; os.write(1, {_SAY!r}); os.read(os.pipe()[0], 1)"]
        contenders: dict[str, Callable[[], float]] = {
            "ours": lambda: cpu_ms_until_first_byte(ours, environment),
            "python": lambda: cpu_ms_until_first_byte(python, environment),
        }
        if (qemu := shutil.which("qemu-system-x86_64")) is not None:
            theirs = [qemu, "-M", "microvm", "-accel", "kvm", "-cpu", _CPU, "-m", _MEMORY, "-nodefaults"]
            theirs += ["-no-user-config", "-display", "none", "-kernel", str(kernel), "-serial", "stdio"]
            contenders[MICROVM] = lambda: cpu_ms_until_first_byte(theirs, environment)
        times = interleave(contenders, options.rounds, progress="P8 start")
    what = f"CPU time from process start to the guest's first OUT, {_MEMORY}"
    rows = [
        compare("P8", what, times["ours"], MICROVM, times.get(MICROVM), unit="ms", goal=1.0),
        compare("P8", what, times["ours"], f"goal of {GOAL_MS:g} ms", [GOAL_MS], unit="ms", goal=1.0),
    ]
    return [
        *rows,
        compare("P8", what, times["ours"], "the interpreter itself", times["python"], unit="ms", goal=None),
    ]
