"""`make bench`: figures beside their yardsticks, printed as ratios and saved to bench/results.json.

P9 (first part): first KVM_RUN to userspace, of a stock Debian kernel with the same initramfs and
command line, in our VMM, in a bare C VMM (bench/floor) and in QEMU q35 and microvm, interleaved in
one host. Where this machine's KVM is not complete, all of them run in one emulated host.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))

import guest  # noqa: E402 - tools/ is no package

CMDLINE = "console=ttyS0 quiet panic=-1"
MEMORY_MIB = 256
ACPI_ADDRESS = "0xE0000"
MARKER = b"{userspace}"


@attrs.frozen
class Contender:
    """Somebody who boots the kernel once and says how many seconds it took."""

    name: str
    boot: Callable[[Path], float]


def ours(kernel: Path) -> float:
    from vmm_reference import EventMonitorConfig, MemoryConfig, VmConfig, Vmm

    with tempfile.NamedTemporaryFile() as events:
        config = VmConfig(
            kernel=kernel,
            initramfs=HERE / "floor/bin/initramfs.cpio",
            cmdline=CMDLINE,
            memory=MemoryConfig(size=MEMORY_MIB << 20),
            event_monitor=EventMonitorConfig(path=Path(events.name)),
        )
        with Vmm(config, serial_out=lambda _: None) as vmm:
            vmm.boot()
            vmm.wait(120)
        records = [json.loads(line) for line in Path(events.name).read_text().splitlines()]
    return next(r["properties"]["seconds"] for r in records if r["event"] == "userspace-reached")


def floor(kernel: Path) -> float:
    tables = f"{HERE / 'floor/bin/acpi.bin'}@{ACPI_ADDRESS}"
    command = [HERE / "floor/bin/floor", "--kernel", kernel, "--initrd", HERE / "floor/bin/initramfs.cpio"]
    command += ["--cmdline", CMDLINE, "--memory", str(MEMORY_MIB), "--acpi", tables]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    line = next(line for line in output.splitlines() if line.startswith("floor: "))
    return float(line.split()[1])


def qemu(machine: str) -> Callable[[Path], float]:
    def boot(kernel: Path) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return _qemu_once(machine, kernel, Path(scratch))

    return boot


def _qemu_once(machine: str, kernel: Path, scratch: Path) -> float:
    """Time from QEMU's RESUME event to the marker that init leaves in the kernel's log (floor/init.c)."""
    monitor = scratch / "qmp"
    command = ["qemu-system-x86_64", "-M", machine, "-accel", "kvm", "-cpu", "host", "-m", str(MEMORY_MIB)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"]
    command += ["-kernel", str(kernel), "-initrd", str(HERE / "floor/bin/initramfs.cpio"), "-append", CMDLINE]
    command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    command += ["-qmp", f"unix:{monitor},server=on,wait=off"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            start = _resume(monitor)
            assert process.stdout is not None
            for line in process.stdout:
                if MARKER in line:
                    return time.time() - start
            raise RuntimeError(f"QEMU {machine} ended before userspace")
        finally:
            process.kill()


def _connect(path: Path) -> socket.socket:
    """Connect to QEMU's monitor: its socket has a name before it listens."""
    deadline = time.monotonic() + 60
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return client


def _resume(path: Path) -> float:
    """Let the guest run; return when its vCPUs did, by QEMU's own clock."""
    with _connect(path) as client:
        stream = client.makefile("rw")
        for command in ("qmp_capabilities", "cont"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
        for line in stream:
            message = json.loads(line)
            if message.get("event") == "RESUME":
                stamp = message["timestamp"]
                return float(stamp["seconds"] + stamp["microseconds"] / 1e6)
    raise RuntimeError("QEMU closed its monitor")


CONTENDERS = (
    Contender("ours", ours),
    Contender("bare C VMM", floor),
    Contender("QEMU q35", qemu("q35")),
    Contender("QEMU microvm", qemu("microvm")),
)


def race(kernel: Path, rounds: int) -> dict[str, list[float]]:
    """Boot everybody in turn, `rounds` times."""
    times: dict[str, list[float]] = {contender.name: [] for contender in CONTENDERS}
    for number in range(rounds):
        for contender in CONTENDERS:
            if contender.name.startswith("QEMU") and not shutil.which("qemu-system-x86_64"):
                continue
            seconds = contender.boot(kernel)
            times[contender.name].append(seconds)
            print(f"round {number + 1}/{rounds}: {contender.name} {seconds:.3f} s", flush=True)
    return times


def report(times: dict[str, list[float]]) -> list[dict[str, object]]:
    """Print and return the ratios of medians."""
    mine = statistics.median(times["ours"])
    goals = {"bare C VMM": 1.25, "QEMU q35": 1.0, "QEMU microvm": 1.0}
    rows: list[dict[str, object]] = []
    for name, goal in goals.items():
        row: dict[str, object] = {
            "id": "P9",
            "what": "first KVM_RUN to userspace, Debian 6.12 cloud kernel (ELF)",
            "ours": round(mine, 3),
            "yardstick_name": name,
            "unit": "s",
            "better": "lower",
        }
        if times[name]:
            yardstick = statistics.median(times[name])
            spread = (max(times[name]) - min(times[name])) / yardstick
            ratio = mine / yardstick
            row |= {"yardstick": round(yardstick, 3), "ratio": round(ratio, 3)}
            row["status"] = "met" if ratio <= goal else "missed"
            figures = f"ours {mine:.3f} s / {name} {yardstick:.3f} s = {ratio:.2f}"
            print(f"P9 {figures}, goal {goal} (spread {spread:.0%})")
        else:
            row |= {"yardstick": None, "ratio": None, "status": "missing"}
            print(f"P9 {name}: missing")
        rows.append(row)
    return rows


def build_floor() -> None:
    python = f"PYTHON={sys.executable}"
    command = [
        "make",
        "-s",
        "-C",
        str(HERE / "floor"),
        python,
        "bin/floor",
        "bin/initramfs.cpio",
        "bin/acpi.bin",
    ]
    subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="boots of each (default: %(default)s)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kernel = guest.debian_guest().image
    if options.inside:
        options.inside.write_text(json.dumps(race(kernel, options.rounds)))
        return 0
    build_floor()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "times.json"
        command = [sys.executable, __file__, "--rounds", str(options.rounds), "--inside", str(file)]
        if _complete():
            subprocess.run(command, check=True)
        else:
            import vmm_testhost

            vmm_testhost.run(command, writable=[scratch], memory=4096)
        times = json.loads(file.read_text())
    (HERE / "results.json").write_text(json.dumps(report(times), indent=2) + "\n")
    return 0


def _complete() -> bool:
    from vm_hypervisor import HypervisorUnavailableError
    from vm_hypervisor.probe import measure

    try:
        return measure().complete
    except HypervisorUnavailableError:
        return False


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
