"""How a machine ends: each row of README's table, its exit status, its last events, what is left behind."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import guest
import pytest
import tiny_guest
from both_hosts import both_hosts
from vmm_testhost.pytest_plugin import LONG

ON_X86, ON_ARM64 = pytest.mark.kvm_full, pytest.mark.arm64
PVPANIC, PANIC_ROW = ("pvpanic_mmio",), "guest panics, pvpanic driver loaded"
README = (Path(__file__).parents[2] / "README.md").read_text()
CMDLINE = f"console={guest.CONSOLE} quiet nowatchdog panic=-1 pci=off rdinit=/vmm-init"


@attrs.frozen
class Outcome:
    """What one run came to."""

    status: int
    events: list[tuple[str, str, str]]  # source, event, reason
    output: bytes
    err: str
    restored: bool  # the terminal


class OnTerminal:
    """A process on a terminal of its own, with an empty TMPDIR."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.main, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        self.events = folder / "events"
        self.process = subprocess.Popen(
            [*command, "--event-monitor", f"path={self.events}"],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TMPDIR": str(self.scratch)},
        )
        self.output = b""

    def expect(self, wanted: bytes) -> None:
        """Read until that came."""
        while wanted not in self.output:
            self.output += os.read(self.main, 4096)

    def outcome(self) -> Outcome:
        """Wait for the end; nothing may be left in TMPDIR."""
        assert self.process.stderr is not None
        err = self.process.stderr.read().decode()
        status = self.process.wait(60)
        restored = termios.tcgetattr(self.slave) == self.before
        records = [json.loads(line) for line in self.events.read_text().splitlines()]
        assert list(self.scratch.iterdir()) == []
        short = [(r["source"], r["event"], r["properties"].get("reason", "")) for r in records]
        return Outcome(status, short, self.output, err, restored)

    def close(self) -> None:
        """End what is left."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.main)
        os.close(self.slave)


@contextmanager
def on_terminal(command: list[str], folder: Path) -> Iterator[OnTerminal]:
    """Run a command on a terminal."""
    terminal = OnTerminal(command, folder)
    try:
        yield terminal
    finally:
        terminal.close()


def promised(row: str) -> tuple[int, str]:
    """Return (exit status, reason) of that row of README's table."""
    found = re.search(rf"^\| {re.escape(row)}[^|]*\| (\d+) \| `(\w+)`", README, re.MULTILINE)
    assert found, f"README has no row that begins with {row!r}"
    return int(found[1]), found[2]


def check(outcome: Outcome, row: str) -> None:
    """The run is as README promises, and ends with the two records of every end."""
    status, reason = promised(row)
    assert (outcome.status, outcome.events[-2:]) == (
        status,
        [("vm", "shutdown", reason), ("vmm", "shutdown", "")],
    ), outcome
    assert outcome.restored


def run_to_its_end(folder: Path, end: str, row: str, before: str, err: str) -> None:
    """Run a tiny guest, and check the run by README's row, its last event but two and its line on stderr."""
    with on_terminal(tiny_guest.command(folder, end), folder) as terminal:
        outcome = terminal.outcome()
        terminal.expect(b"hello\n")
    check(outcome, row)
    assert ("vm", before, "") in outcome.events
    assert outcome.err == err


@both_hosts(tiny=True)
@pytest.mark.parametrize(
    ("end", "row", "before", "err"),
    [
        ("power-off", "guest powers off", "booted", ""),
        ("reset", "guest reboots", "reset-requested", ""),
        ("panic", PANIC_ROW, "panic", "vmm: panic: the guest's kernel panicked\n"),
    ],
)
def test_the_guest_ends_it(tmp_path, arch, end, row, before, err):
    """Status, last events, the line on stderr, terminal and folders, for what a guest can do."""
    assert arch == guest.ARCH
    run_to_its_end(tmp_path, end, row, before, err)


@both_hosts(aarch64=False, tiny=True)
def test_a_mistake_in_a_device_ends_it(tmp_path, arch):
    """As what a guest does, with what it was on stderr."""
    assert arch == guest.ARCH
    said = "vmm: failed: vCPU 0: ValueError: a mistake in a device\n"
    run_to_its_end(tmp_path, "device", "exception in a device", "booted", said)


@pytest.mark.kvm
def test_a_triple_fault_ends_it(tmp_path):
    """Which x86 alone has."""
    said = "vmm: crash: triple fault on vCPU 0\n"
    run_to_its_end(tmp_path, "triple fault", "triple fault", "booted", said)


@both_hosts(aarch64=False, tiny=True)
@pytest.mark.parametrize(
    ("how", "row"),
    [
        (b"\x01x", "Ctrl-A x"),
        (signal.SIGINT, "SIGINT"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGHUP, "SIGHUP"),
    ],
    ids=["ctrl-a-x", "sigint", "sigterm", "sighup"],
)
@pytest.mark.parametrize("end", ["spin", "halt"])
def test_the_user_ends_it(tmp_path, arch, how, row, end):
    """A guest that spins, and one that halted with interrupts off, go on until the user ends them."""
    assert arch == guest.ARCH
    with on_terminal(tiny_guest.command(tmp_path, end), tmp_path) as terminal:
        terminal.expect(b"hello\n")
        if isinstance(how, bytes):
            os.write(terminal.main, how)
        else:
            terminal.process.send_signal(how)
        check(terminal.outcome(), row)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.kvm
def test_a_halted_machine_stands_and_costs_nothing(tmp_path):
    """Halted with interrupts off: no end, no event, no CPU time. KVM keeps the halt to itself."""
    with on_terminal(tiny_guest.command(tmp_path, "halt"), tmp_path) as terminal:
        terminal.expect(b"hello\n")
        time.sleep(0.5)
        spent = cpu_seconds(terminal.process.pid)
        time.sleep(1)
        assert terminal.process.poll() is None
        assert cpu_seconds(terminal.process.pid) - spent < 0.2
        assert "shutdown" not in terminal.events.read_text()


FIFTY = """
import gc, json, os, re, sys, threading
from pathlib import Path
from vmm_reference import (CpusConfig, DiskConfig, EndReason, EventMonitorConfig, MemoryConfig, SerialConfig,
                           VmConfig, Vmm)
from vmm_reference._serial import open_backend

kernel, disk, events = map(Path, sys.argv[1:])

def boot():
    backend = open_backend(SerialConfig.parse("pty"), lambda: None)
    config = VmConfig(kernel, memory=MemoryConfig(16 << 20), cpus=CpusConfig(2, 2), disks=(DiskConfig(disk),),
                      event_monitor=EventMonitorConfig(events))
    with Vmm(config, serial_out=backend.write) as vmm:
        backend.attach(vmm.machine.events, vmm.machine.serial)
        vmm.boot()
        assert vmm.wait(30).reason is EndReason.POWEROFF
        backend.detach()
    backend.close()

def state():
    gc.collect()
    own = Path("/proc/self")
    fds = [os.readlink(path) for path in (own / "fd").iterdir() if path.is_symlink() and path.exists()]
    maps = [line.split(maxsplit=5) for line in (own / "maps").read_text().splitlines()]
    return {
        "fds": sorted(fds),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(os.listdir(own / "task")),
        "files": sorted(f"{fields[1]} {fields[5]}" for fields in maps if len(fields) == 6),
        "anonymous": sum(len(fields) == 5 for fields in maps),
        "resident": int(re.search(r"VmRSS:\\s+(\\d+)", (own / "status").read_text())[1]),
    }

for _ in range(3):  # the first ones load modules and fill the allocator's pools
    boot()
before = state()
for _ in range(50):
    boot()
print(json.dumps([before, state()]))
"""


@pytest.mark.kvm
def test_fifty_boots_leave_nothing(tmp_path):
    """Two vCPUs, disk, entropy, pty, events: 50 machines in one process, and it is as it was before."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    kernel = tiny_guest.kernel(tmp_path, "power-off")
    done = subprocess.run(
        [sys.executable, "-c", FIFTY, kernel, disk, tmp_path / "events"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    for exact in ("fds", "threads", "tasks", "files"):
        assert after[exact] == before[exact]
    # What malloc and the threads' stacks keep for reuse: it differs by one or two, for 10 boots as for 300.
    assert abs(after["anonymous"] - before["anonymous"]) <= 3
    assert after["resident"] - before["resident"] < 4096  # KiB
    assert list(scratch.iterdir()) == []


def stock(
    folder: Path, jobs: str, *words: str, modules: Sequence[str] = (), script: str | None = None
) -> list[str]:
    """Return the command line of `vmm run` with Debian's kernel and our init, and then a busybox script."""
    chosen = guest.debian_guest()
    image = folder / "initramfs"
    below = b"" if script is None else guest.busybox_image(script)
    image.write_bytes(guest.initramfs(chosen, modules=modules, image=below))
    run = [sys.executable, "-m", "vmm_reference", "run", "--host", "kvm", "--memory", "size=256M"]
    files = ["--kernel", str(chosen.image), "--initramfs", str(image)]
    return [*run, *files, "--cmdline", f"{CMDLINE} {jobs}", *words]


# Debian's arm64 kernels have no pvpanic driver.
LONG_ON_ARM64 = [
    pytest.param("aarch64", "panic", (), "guest panics without it", marks=ON_ARM64, id="panic-aarch64"),
    pytest.param("aarch64", "poweroff", (), "guest powers off", marks=ON_ARM64, id="poweroff-aarch64"),
]


@pytest.mark.parametrize(
    ("arch", "job", "modules", "row"),
    [
        pytest.param("x86_64", "reboot", (), "guest reboots", marks=ON_X86, id="reboot"),
        pytest.param("x86_64", "panic", PVPANIC, PANIC_ROW, marks=ON_X86, id="panic-pvpanic"),
        pytest.param("x86_64", "panic", (), "guest panics without it", marks=ON_X86, id="panic-no-driver"),
        pytest.param("x86_64", "poweroff", (), "guest powers off", marks=ON_X86, id="poweroff"),
        pytest.param("aarch64", "reboot", (), "guest reboots", marks=ON_ARM64, id="reboot-aarch64"),
        *(LONG_ON_ARM64 if LONG else ()),
    ],
)
def test_linux_ends_it(tmp_path, arch, job, modules, row):
    """Debian's kernel and its own pvpanic driver, to the same table."""
    assert arch == guest.ARCH
    with on_terminal(stock(tmp_path, f"vmm.end={job}", modules=modules), tmp_path) as terminal:
        check(terminal.outcome(), row)


FILL = """
dd if=/dev/zero of=/dev/vda bs=64k count=64 conv=fsync 2>/dev/null || echo guest: the disk refused
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda of=/dev/null bs=4k count=1 && echo guest: still reads
poweroff -f
"""


@pytest.mark.kvm_full
@pytest.mark.root_net  # mounts
@pytest.mark.parametrize("events_too", [True, False], ids=["with-its-events", "events-elsewhere"])
def test_a_full_disk_is_the_guests_error_not_our_end(tmp_path, events_too):
    """The file system under the image is full: I/O errors for the guest, its own end, and whole records."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", place], check=True)
    try:
        image = place / "disk"
        image.touch()
        os.truncate(image, 8 << 20)
        events = (place if events_too else tmp_path) / "events"
        words = ["--disk", f"path={image}", "--event-monitor", f"path={events}"]
        words += ["--serial", f"file={tmp_path / 'console'}"]
        command = stock(tmp_path, "vmm.end=exec", *words, modules=guest.MODULES, script=FILL)
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        console = (tmp_path / "console").read_text()
        status, reason = promised("host disk full")
        assert done.returncode == status, done.stderr + console
        assert "guest: the disk refused" in console
        assert "guest: still reads" in console, console
        records = [json.loads(line) for line in events.read_text().splitlines()]
        assert [record["event"] for record in records[:3]] == ["starting", "booting", "booted"]
        if not events_too:
            last = [(record["source"], record["event"]) for record in records[-2:]]
            assert last == [("vm", "shutdown"), ("vmm", "shutdown")]
            assert records[-2]["properties"]["reason"] == reason
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", place], check=True)
