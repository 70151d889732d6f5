"""The real host: few launches, many assertions, because each launch costs seconds."""

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import vmm_testhost

pytestmark = pytest.mark.testhost

LAUNCH = 150  # seconds; a launch takes 6, several times that on a machine with other work

INSIDE = r"""
import fcntl, mmap, os, sys
assert fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xAE00) == 12
assert fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xAE01, 0) >= 0  # a VM
os.close(os.open("/dev/net/tun", os.O_RDWR))
os.close(os.open("/dev/vhost-net", os.O_RDWR))
import pty, socket; pty.openpty()
s = socket.create_server(("127.0.0.1", 0)); socket.create_connection(s.getsockname())
open("/proc/sys/vm/nr_hugepages", "w").write("4"); mmap.mmap(-1, 4 << 20, mmap.MAP_SHARED | 0x40000)
assert os.getuid() == 0 and os.environ["VMM_TESTHOST"] == "1" and os.environ["EXTRA"] == "a b"
image, results = sys.argv[1:]
assert os.environ["VMM_TESTHOST_RESULTS"] == results
fd = os.open(image, os.O_RDWR)
os.pwrite(fd, b"synced", 4096); os.fsync(fd)
m = mmap.mmap(fd, 65536); m[8192:8198] = b"mapped"; m.flush()
d = os.open(image, os.O_RDWR | os.O_DIRECT)
b = mmap.mmap(-1, 4096); b[:6] = b"direct"; assert os.pwrite(d, b, 12288) == 4096
open(results + "/made", "w").write("inside")
open(os.path.dirname(image) + "/lost", "w").write("x")
data = sys.stdin.buffer.read()
sys.stderr.write("to stderr"); sys.stderr.flush()
sys.stdout.buffer.write(data[::-1] + os.getcwd().encode()); sys.stdout.flush()
if os.fork() == 0:
    import time; time.sleep(1000)  # holds stdout open, must not hold up the end
sys.exit(3)
"""


def test_everything_passes_through(tmp_path):
    """Bytes, exit status, environment, directories, devices and written files cross as documented."""
    image = tmp_path / "folder's" / "disk, 1.img"
    image.parent.mkdir()
    image.write_bytes(bytes(65536))
    results = tmp_path / "results"
    sent = bytes(range(256)) * 1000
    result = vmm_testhost.run(
        [sys.executable, "-c", INSIDE, image, results],
        cwd=tmp_path,
        env={"EXTRA": "a b"},
        results=results,
        writable=[image],
        stdin=sent,
        capture=True,
        timeout=LAUNCH,
    )
    assert (result.returncode, result.stderr) == (3, b"to stderr")
    assert result.stdout == sent[::-1] + str(tmp_path).encode()
    written = image.read_bytes()
    assert written[4096:4102] == b"synced"
    assert written[8192:8198] == b"mapped"
    assert written[12288:12294] == b"direct"
    assert (results / "made").read_text() == "inside"
    assert not (image.parent / "lost").exists()
    assert 0 < result.boot_seconds < result.seconds


def test_crash_shows_the_kernel_log_and_keeps_what_was_written(tmp_path):
    """A host that dies without a status is an error with the kernel's last words; written files are kept."""
    command = f"exec >{tmp_path}/log; echo written; echo c >/proc/sysrq-trigger; sleep 60"
    with pytest.raises(
        vmm_testhost.HostCrashError, match="while the command ran, without an exit status"
    ) as info:
        vmm_testhost.run(["sh", "-c", command], writable=[tmp_path], timeout=LAUNCH)
    assert info.value.started
    assert "sysrq triggered crash" in info.value.kernel_log
    assert (tmp_path / "log").read_text() == "written\n"


def test_a_host_of_several_cpus_that_ends_before_the_command_starts_once_more(tmp_path, caplog):
    """QEMU's threads make a kernel panic now and then while it boots: the caller gets a second host."""
    monitor = tmp_path / "monitor"

    def end_the_first() -> None:
        while not monitor.exists():
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as ends:
            ends.connect(str(monitor))
            ends.sendall(b"quit\n")
            while ends.recv(4096):
                pass

    thread = threading.Thread(target=end_the_first)
    thread.start()
    extra = ["-monitor", f"unix:{monitor},server=on,wait=off"]
    result = vmm_testhost.run(["nproc"], cpus=2, extra_qemu_args=extra, capture=True, timeout=2 * LAUNCH)
    thread.join()
    assert (result.returncode, result.stdout) == (0, b"2\n")
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "before the command started" in warning
    assert warning.endswith("(QEMU's is 0); starting it once more")


def test_missing_command_and_second_run_offline(monkeypatch, tmp_path):
    """Status 127 as from a shell; a cached host needs neither apt nor network."""
    broken = tmp_path / "bin"
    broken.mkdir()
    for name in ("apt-get", "apt-cache"):
        (broken / name).write_text("#!/bin/sh\nexit 1\n")
        (broken / name).chmod(0o755)
    vmm_testhost.prepare()
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    result = vmm_testhost.run(["/no/such/command"], capture=True, timeout=LAUNCH)
    assert result.returncode == 127
    assert b"vmm-testhost: /no/such/command: No such file or directory" in (result.stderr or b"")


def start(*argv, **streams):
    """Start the command line tool."""
    return subprocess.Popen([sys.executable, "-m", "vmm_testhost", *argv], **streams)


def child_of(pid):
    """Return the one child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def gone(pid):
    """Wait until a process does not run any more."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        select.select([], [], [], 0.05)
    return False


# Slices: CPython may miss a signal that comes just before a long system call, and would sleep through it.
TRAP = """
import time
try:
    print("up", flush=True)
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    print("got it")
    raise
"""


def test_interrupt_reaches_the_command():
    """SIGINT to vmm-testhost is a Ctrl-C for the command: it may clean up, and 130 comes out."""
    outer = start("--", sys.executable, "-c", TRAP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert outer.stdout.readline() == b"up\n"
    qemu = child_of(outer.pid)
    outer.send_signal(signal.SIGINT)
    rest, _ = outer.communicate(timeout=LAUNCH)
    assert rest == b"got it\n"
    assert outer.returncode == 130
    assert gone(qemu)


def test_stubborn_command_is_ended_and_killed_tool_leaves_no_qemu():
    """SIGTERM ends a command that ignores SIGINT; SIGKILL of the tool takes QEMU along."""
    stubborn = ["sh", "-c", "trap '' INT; echo up; sleep 999"]
    outer = start("--", *stubborn, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    doomed = start("--", *stubborn, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert outer.stdout.readline() == b"up\n"
    assert doomed.stdout.readline() == b"up\n"
    qemu = child_of(doomed.pid)
    doomed.kill()
    doomed.communicate(timeout=30)
    assert gone(qemu)
    outer.terminate()
    outer.communicate(timeout=60)
    assert outer.returncode == 128 + signal.SIGTERM


def test_timeout_is_an_error_with_the_output():
    """A command that does not end in time is stopped; what it wrote is in the error."""
    with pytest.raises(vmm_testhost.HostTimeoutError, match="did not end within 30 s") as info:
        vmm_testhost.run(["sh", "-c", "echo started; sleep 999"], capture=True, timeout=30)
    assert info.value.stdout == b"started\n"


def test_terminal_passes_keys_and_size():
    """With a terminal outside there is one inside: it echoes, has our size, and Ctrl-C interrupts."""
    shell = (
        "trap 'echo after; exit 5' INT; stty size; read line; echo \"<$line>\"; while :; do sleep 0.1; done"
    )
    pid, master = pty.fork()
    if pid == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
            os.execv(sys.executable, [sys.executable, "-m", "vmm_testhost", "--", "sh", "-c", shell])
        finally:
            os._exit(99)
    seen = b""

    def until(text):
        nonlocal seen
        end = time.monotonic() + LAUNCH
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 4096)

    until(b"33 99")
    os.write(master, b"hello\r")
    until(b"<hello>")
    os.write(master, b"\x03")
    until(b"after")
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 5
