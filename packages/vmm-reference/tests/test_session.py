"""`vmm run` in the foreground with kernels of a few bytes: exit statuses, signals, the terminal."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import termios
import time

import pytest

pytestmark = pytest.mark.kvm

WAIT = 120  # seconds: in a busy emulated host the command alone takes 20 to start

# The kernels run on any KVM: only the verdict that stock ones do not is overruled.
VMM = """
import sys
from vmm_reference import _cli, _host
_host.choose = lambda _: _host.HostChoice("kvm", "as the test says")
sys.exit(_cli.main(sys.argv[1:]))
"""


def command(kernel, *words):
    """Return the command line of a run."""
    return [
        sys.executable,
        "-c",
        VMM,
        "run",
        "--host",
        "kvm",
        "--kernel",
        kernel,
        "--memory",
        "size=16M",
        *words,
    ]


@pytest.mark.parametrize(
    ("end", "status", "err"),
    [
        ("poweroff", 0, b""),
        ("reset", 3, b""),
        ("i8042", 3, b""),
        ("fault", 4, b"vmm: crash: triple fault on vCPU 0\n"),
    ],
)
def test_exit_status(kernel, end, status, err):
    """What the guest did at its end is the exit status; its console is our stdout."""
    done = subprocess.run(command(kernel(end)), capture_output=True, stdin=subprocess.DEVNULL, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"hello\n", err)


def test_a_trace_of_the_whole_run(kernel, tmp_path):
    """Written when the machine ends, for its owner alone."""
    path = tmp_path / "t.pftrace"
    line = command(kernel("poweroff"), "--trace", path)
    done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    assert path.stat().st_mode & 0o777 == 0o600
    trace = path.read_bytes()
    assert trace.count(b"vcpu0") == 1
    assert trace.count(b"IO") >= 2  # the text and the end


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(kernel, number, status):
    """A signal ends a spinning guest with the status that shells use for it."""
    with subprocess.Popen(
        command(kernel("count")), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(number)
        assert process.wait(WAIT) == status
        assert process.stderr.read() == b""


def test_signals_at_any_moment(kernel):
    """From its first line to its last a run on a terminal leaves it as it was, with the signal's status."""
    for delay in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2):
        main, slave = os.openpty()
        before = termios.tcgetattr(slave)
        words = command(kernel("count"), "-vv")
        process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=subprocess.PIPE)
        raw = False
        while not raw and process.poll() is None:
            raw = not termios.tcgetattr(slave)[3] & termios.ICANON
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 143, process.stderr.read()
        assert termios.tcgetattr(slave) == before
        process.stderr.close()
        os.close(main)
        os.close(slave)


def test_console_that_nobody_reads(kernel):
    """A guest that floods a pipe which is never read still ends within seconds of SIGTERM."""
    flood = kernel("echo", text=b"x" * 100)
    process = subprocess.Popen(command(flood), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.read(100) == b"x" * 100
        os.set_blocking(process.stdin.fileno(), False)
        end = time.monotonic() + 3  # the echo of what is typed fills the pipe, then everything stands
        while time.monotonic() < end:
            try:
                process.stdin.write(b"y" * 4096)
                process.stdin.flush()
            except BlockingIOError:
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 143
    finally:
        process.kill()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def test_terminal(kernel):
    """Typed keys reach the guest raw, Ctrl-A x ends it with 130, the terminal is as before."""
    import fcntl

    main, slave = os.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        command(kernel("echo")),
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        got = b""
        while got != b"hello\n":
            got += os.read(main, 100)
        os.write(main, b"\x03ls\r")
        got = b""
        while len(got) < 4:
            got += os.read(main, 100)
        assert got == b"\x03ls\r"
        os.write(main, b"\x01x")
        assert process.wait(WAIT) == 130
        assert process.stderr.read() == b""
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.stderr.close()
        os.close(main)
        os.close(slave)


def test_socket_console(kernel, tmp_path):
    """The console on a socket: the boot from its start, an echo, and the socket gone at the end."""
    path = tmp_path / "console"
    process = subprocess.Popen(command(kernel("echo"), "--serial", f"socket={path}"))
    try:
        end = time.monotonic() + WAIT
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT)
            while client.connect_ex(str(path)):  # the name is there a moment before somebody listens
                assert time.monotonic() < end
                time.sleep(0.01)
            got = b""
            while got != b"hello\n":
                got += client.recv(100)
            client.sendall(b"?")
            assert client.recv(1) == b"?"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
    finally:
        process.kill()
        process.wait()
    assert not path.exists()


def test_file_console_and_no_console(kernel, tmp_path):
    """The console in a file; and no serial port at all, whose output goes nowhere."""
    path = tmp_path / "console"
    assert (
        subprocess.run(command(kernel("poweroff"), "--serial", f"file={path}"), timeout=WAIT).returncode == 0
    )
    assert path.read_bytes() == b"hello\n"
    done = subprocess.run(command(kernel("poweroff"), "--serial", "off"), capture_output=True, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
