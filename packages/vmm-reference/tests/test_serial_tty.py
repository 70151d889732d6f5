"""The console on a real terminal: raw mode set and restored, Ctrl-A x, every odd way to be started."""

import os
import select
import signal
import subprocess
import sys
import termios

import pytest

SESSION = """
import os, sys, threading
from vm_device import EventManager
from vmm_reference import SerialConfig
from vmm_reference._cli import _hold_standard_streams
from vmm_reference._serial import open_backend

class Port:
    def enqueue(self, data):
        print("typed", data, file=sys.stderr, flush=True)
        return len(data)

_hold_standard_streams()  # as main() does
quit = threading.Event()
backend = open_backend(SerialConfig(), quit.set)
with EventManager("test") as events:
    events.start()
    backend.attach(events, Port())
    backend.write(b"login:\\n ")
    print("ready", file=sys.stderr, flush=True)
    quit.wait(60)
    backend.detach()
    backend.close()
print("closed", quit.is_set(), file=sys.stderr, flush=True)
"""


class Terminal:
    """A pseudo-terminal with a session running on it; its stderr is a pipe."""

    def __init__(self, *, controlling=True):
        self.main, slave = os.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=self._take if controlling else None,
        )

    @staticmethod
    def _take():
        import fcntl

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def expect(self, line):
        """Read one line of the session's stderr and compare."""
        assert self.process.stderr.readline() == line

    def output(self, size):
        """Read `size` bytes from the terminal."""
        data = b""
        while len(data) < size:
            assert select.select([self.main], [], [], 60)[0], data
            data += os.read(self.main, size - len(data))
        return data

    def close(self):
        """End what is left."""
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.main)
        os.close(self.slave)


@pytest.fixture
def terminals():
    """A function that opens terminals, closed at the end."""
    opened = []

    def open_terminal(**options):
        opened.append(Terminal(**options))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize("controlling", [True, False], ids=["controlling", "foreign"])
def test_raw_and_back(terminals, controlling):
    """Raw while it runs, with Ctrl-C for the guest; as before afterwards; also on a foreign terminal."""
    terminal = terminals(controlling=controlling)
    assert terminal.output(8) == b"login:\n "  # no carriage return: output is raw as well
    terminal.expect(b"ready\n")
    flags = termios.tcgetattr(terminal.slave)[3]
    assert not flags & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(terminal.main, b"root\r\x03\x1a")
    terminal.expect(b"typed b'root\\r\\x03\\x1a'\n")
    os.write(terminal.main, b"\x01x")
    terminal.expect(b"typed b''\n")
    terminal.expect(b"closed True\n")
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert terminal.process.wait(60) == 0


def test_stopped_terminal_does_not_keep_us(terminals):
    """A terminal whose output is held is restored without waiting for it to drain."""
    terminal = terminals()
    terminal.expect(b"ready\n")
    termios.tcflow(terminal.slave, termios.TCOOFF)
    os.write(terminal.main, b"\x01x")
    terminal.expect(b"typed b''\n")
    terminal.expect(b"closed True\n")
    termios.tcflow(terminal.slave, termios.TCOON)


def test_hung_up_terminal_is_no_busy_loop(terminals):
    """When the terminal window closes, input ends quietly."""
    main, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION.replace("quit.wait(60)", "quit.wait(0.5)")],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(slave)
    assert process.stderr.readline() == b"ready\n"
    os.close(main)
    out = process.communicate(timeout=240)[1]
    assert process.returncode in (0, 1, -signal.SIGHUP), out
    assert len(out) < 4096, "it does not chatter"


@pytest.mark.parametrize(
    ("stdin", "stdout"),
    [
        ("/dev/null", "/dev/null"),
        ("/etc/passwd", "/dev/null"),
        ("closed", "/dev/null"),
        ("/dev/null", "closed"),
    ],
)
def test_no_terminal_at_all(stdin, stdout):
    """Null, a file or nothing at all as standard streams: no input, output where it goes, no error."""
    shell = f'exec {sys.executable} -c "$0" {redirect("<", stdin)} {redirect(">", stdout)}'
    script = SESSION.replace("quit.wait(60)", "quit.wait(0.1)")
    result = subprocess.run(["sh", "-c", shell, script], stderr=subprocess.PIPE, timeout=240)
    assert result.returncode == 0
    assert b"Traceback" not in result.stderr
    assert result.stderr.startswith(b"ready\n") or b"output is lost" in result.stderr


def redirect(sign, target):
    """Return a shell redirection."""
    return f"{sign}&-" if target == "closed" else f"{sign}{target}"


def test_a_reader_that_leaves_ends_a_machine_nobody_can_type_at():
    """`vmm run … | head -1` ends: without a terminal there is no Ctrl-A x."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
        check=False,
    )
    os.close(theirs)
    assert "serial output is lost: Broken pipe" in done.stderr
    assert done.stderr.splitlines()[-1] == "closed True"
