"""P9: a stock Debian kernel to userspace, in our VMM, a bare C VMM, QEMU's q35 and microvm, in one host.

Everybody is one process a boot: `vmm run`, bench/floor, QEMU. Two figures of each: from process start, and
from the first KVM_RUN, to the write of the guest's init. Where this machine's KVM is not complete, all run in
one emulated host.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import yardsticks
from harness import Options, Row, compare

HERE: Final = Path(__file__).resolve().parent
CMDLINE: Final = "console=ttyS0 quiet panic=-1"
MEMORY_MIB: Final = 256
_ACPI_ADDRESS: Final = "0xE0000"
_MARKER: Final = b"{userspace}"
_PATIENCE: Final = 240
_INITRAMFS: Final = HERE / "floor/bin/initramfs.cpio"

FLOOR: Final = "bare C VMM"
Q35, MICROVM = "QEMU q35", "QEMU microvm"
FASTER: Final = "the faster of QEMU q35 and microvm"
Times = dict[str, list[tuple[float, float]]]  # seconds from process start, and from the first KVM_RUN


def ours(kernel: Path) -> tuple[float, float]:
    """Boot with the command; its event monitor says when userspace was reached, and since KVM_RUN."""
    vmm = Path(sys.executable).with_name("vmm")
    reader, writer = os.pipe()
    command = [
        vmm,
        "run",
        "--host",
        "kvm",
        "--kernel",
        kernel,
        "--initramfs",
        _INITRAMFS,
        "--cmdline",
        CMDLINE,
    ]
    command += ["--memory", f"size={MEMORY_MIB}M", "--serial", "null", "--event-monitor", f"fd={writer}"]
    start = time.monotonic()
    with (
        subprocess.Popen(command, pass_fds=[writer], stdin=subprocess.DEVNULL) as process,
        open(reader) as events,
    ):
        os.close(writer)
        try:
            for line in events:
                record = json.loads(line)
                if record["event"] == "userspace-reached":
                    return time.monotonic() - start, record["properties"]["seconds"]
            raise RuntimeError("vmm ended before userspace")
        finally:
            process.kill()


def floor(kernel: Path) -> tuple[float, float]:
    """Boot with the C program, which says how long it took and ends."""
    command = [HERE / "floor/bin/floor", "--kernel", kernel, "--initrd", _INITRAMFS, "--cmdline", CMDLINE]
    command += ["--memory", str(MEMORY_MIB), "--acpi", f"{HERE / 'floor/bin/acpi.bin'}@{_ACPI_ADDRESS}"]
    start = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE)
    whole = time.monotonic() - start
    line = next(line for line in done.stdout.splitlines() if line.startswith("floor: "))
    return whole, float(line.split()[1])


def qemu(machine: str) -> Callable[[Path], tuple[float, float]]:
    """Return a function that boots with QEMU."""

    def boot(kernel: Path) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as scratch:
            return _qemu_once(machine, kernel, Path(scratch))

    return boot


def _qemu_once(machine: str, kernel: Path, scratch: Path) -> tuple[float, float]:
    """To the marker that init leaves in the kernel's log (floor/init.c); from QEMU's RESUME event on.

    The commands that let the guest run wait on QEMU's standard input, so that it waits for nobody.
    """
    console = scratch / "console"
    os.mkfifo(console)
    reader = os.open(console, os.O_RDONLY | os.O_NONBLOCK)  # else QEMU's open would wait
    os.set_blocking(reader, True)
    command = ["qemu-system-x86_64", "-M", machine, "-accel", "kvm", "-cpu", "host", "-m", str(MEMORY_MIB)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"]
    command += ["-kernel", str(kernel), "-initrd", str(_INITRAMFS), "-append", CMDLINE]
    command += ["-chardev", f"file,id=console,path={console}", "-serial", "chardev:console", "-qmp", "stdio"]
    start, wall = time.monotonic(), time.time()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"execute": "qmp_capabilities"}\n{"execute": "cont"}\n')
        process.stdin.flush()
        resumed = _resumed(process.stdout)
        _wait_for_marker(reader)
        whole = time.monotonic() - start
        return whole, whole - (resumed - wall)
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def _resumed(messages: Iterator[str]) -> float:
    """When QEMU let its vCPUs run, by its own clock.

    Raises:
        RuntimeError: it ended before.
    """
    for line in messages:
        message = json.loads(line)
        if message.get("event") == "RESUME":
            stamp = message["timestamp"]
            return float(stamp["seconds"] + stamp["microseconds"] / 1e6)
    raise RuntimeError("QEMU closed its monitor")


def _wait_for_marker(console: int) -> None:
    """Read until init has spoken.

    Raises:
        RuntimeError: the console ended before.
    """
    seen = b""
    while _MARKER not in seen:
        piece = os.read(console, 4096)
        if not piece:
            raise RuntimeError("QEMU ended before userspace")
        seen = seen[-len(_MARKER) :] + piece


CONTENDERS: Final = {"ours": ours, FLOOR: floor, Q35: qemu("q35"), MICROVM: qemu("microvm")}


def race(kernel: Path, rounds: int) -> Times:
    """Boot everybody in turn, `rounds` times."""
    names = [name for name in CONTENDERS if not name.startswith("QEMU") or shutil.which("qemu-system-x86_64")]
    times: Times = {name: [] for name in names}
    # Once for our bytecode and for everybody's files, which an emulated host reads over a slow share.
    warm_up = [name for name in names if name != MICROVM]
    for name in warm_up:
        CONTENDERS[name](kernel)
    for number in range(rounds):
        for name in names:
            whole, inside = CONTENDERS[name](kernel)
            times[name].append((whole, inside))
            print(
                f"P9 boot {number + 1}/{rounds}: {name} {whole:.2f} s, from KVM_RUN {inside:.2f} s",
                flush=True,
            )
    return times


def report(times: Times) -> list[Row]:
    """Make rows of both figures."""
    rows = []
    for index, what in ((1, "first KVM_RUN to userspace"), (0, "process start to userspace")):
        figures = {name: [pair[index] for pair in pairs] for name, pairs in times.items()}
        qemus = [figures[name] for name in (Q35, MICROVM) if figures.get(name)]
        figures[FASTER] = min(qemus, key=statistics.median, default=[])
        for name, goal in ((FLOOR, 1.1), (FASTER, 0.9), (Q35, None), (MICROVM, None)):
            label = f"{what}, Debian 6.12 cloud kernel (ELF)"
            rows.append(compare("P9", label, figures["ours"], name, figures.get(name), unit="s", goal=goal))
    return rows


def run(options: Options) -> list[Row]:
    """Measure here, or in an emulated host."""
    yardsticks.floor("floor", "initramfs.cpio", "acpi.bin")
    sys.path.insert(0, str(HERE.parent / "tools"))
    import guest

    kernel = guest.debian_guest().image
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "times.json"
        command = [
            sys.executable,
            __file__,
            "--boots",
            str(options.boots),
            "--kernel",
            str(kernel),
            str(file),
        ]
        if _complete():
            subprocess.run(command, check=True)
        else:
            import vmm_testhost

            vmm_testhost.run(command, writable=[scratch], memory=4096)
        times = {name: [(a, b) for a, b in pairs] for name, pairs in json.loads(file.read_text()).items()}
    return report(times)


def _complete() -> bool:
    from vm_hypervisor import HypervisorUnavailableError
    from vm_hypervisor.probe import measure

    try:
        return measure().complete
    except HypervisorUnavailableError:
        return False


def main() -> None:
    """Boot in the host that this runs in, and leave the times in a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--boots", type=int, required=True)
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("times", type=Path)
    words = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    words.times.write_text(json.dumps(race(words.kernel, words.boots)))


if __name__ == "__main__":
    main()
