"""A user at a terminal: logs in to the guest, works, pastes 64 KiB, resizes the window, leaves."""

import fcntl
import hashlib
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import guest
import pytest
import tiny_guest

CMDLINE = "console=ttyS0 quiet panic=-1 rdinit=/init"
PASSWORD = "sesame"
# The hash is crypt(3)'s of the password; without -L getty would wait for a modem's carrier.
LOGIN = """
mkdir -p /etc /root /tmp
echo 'root:$1$vmmtests$c1aMFMr9PRjKcQhZHonNv1:0:0:root:/root:/bin/sh' >/etc/passwd
hostname guest
while true; do setsid getty -L 115200 ttyS0 vt100; done
"""


class Typist:
    """Someone at one end of a terminal line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self.seen = ""
        self._from = 0

    def _move(self, to_send: bytes, deadline: float) -> bytes:
        """Send and receive what goes at the moment."""
        assert time.monotonic() < deadline, f"nothing more came after:\n{self.seen[-2000:]}"
        read, write, _ = select.select([self._fd], [self._fd] if to_send else [], [], 1)
        if read:
            self.seen += os.read(self._fd, 65536).decode("ascii", "replace").replace("\r", "")
        return to_send[os.write(self._fd, to_send) :] if write else to_send

    def type(self, text: str, seconds: float = 100) -> None:
        """Type, and read what comes back meanwhile; the guest may be slow, but not stand still."""
        data = text.encode()
        while data:
            rest, deadline = data, time.monotonic() + seconds
            while rest == data:
                rest = self._move(data, deadline)
            data = rest

    def expect(self, pattern: str, seconds: float = 100) -> re.Match[str]:
        """Wait for something that was not yet waited for."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen[self._from :])):
            self._move(b"", deadline)
        self._from += found.end()
        return found

    def run(self, command: str) -> str:
        """Run a shell command, and return what it printed; its echo, which may wrap, does not count."""
        self.type(f"echo be''gin; {command}; echo do''ne\r")
        return self.expect(r"(?s)begin\n(.*?)done\n.*?# ")[1]

    def log_in(self) -> None:
        """From getty's prompt to the shell's."""
        self.expect("guest login: ")
        self.type("root\r")
        self.expect("Password: ")
        self.type(f"{PASSWORD}\r")
        self.expect("# ")

    def paste(self, size: int) -> None:
        """Paste lines into a file of the guest, and compare what arrived."""
        letters = random.Random(size)
        line = lambda: "".join(letters.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=127)) + "\n"  # noqa: E731
        text = "".join(line() for _ in range(size // 128))
        self.run("stty -echo")  # an echo would double the work, and show nothing that the sum does not
        self.type("echo re''ady; cat >/tmp/pasted\r")
        self.expect("ready\n")  # from here on it is cat's terminal, not the line editor's
        self.type(text)
        self.type("\x04")
        self.expect("# ")
        sums = self.run("sha256sum </tmp/pasted; wc -c </tmp/pasted; stty echo")
        assert sums.split() == [hashlib.sha256(text.encode()).hexdigest(), "-", str(size)]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return `vmm run` with a guest that offers a login on its serial port."""
    chosen = guest.debian_guest()
    image = tmp_path / "initramfs"
    image.write_bytes(guest.busybox_image(LOGIN))
    run = [sys.executable, "-m", "vmm_reference", "run", "--host", "kvm", "--memory", "size=256M"]
    return [*run, "--kernel", str(chosen.image), "--initramfs", str(image), "--cmdline", CMDLINE]


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a terminal."""
    ends = os.openpty()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def resize(fd: int, rows: int, columns: int) -> None:
    """Resize the window: the kernel sends SIGWINCH to who is in the foreground."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.mark.kvm_full
@pytest.mark.timeout(900)
def test_a_session_on_a_terminal(command):
    """Log in, work, interrupt, paste 64 KiB while the window changes its size, leave by Ctrl-A x."""
    with terminal() as (main, slave):
        before = termios.tcgetattr(slave)
        process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        try:
            user = Typist(main)
            user.log_in()
            assert user.run("echo $((6 * 7)) $(tty)") == "42 /dev/ttyS0\n"
            resize(main, 50, 132)
            # Said when `sleep` surely runs: an interrupt between fork and exec is the shell's, and lost.
            user.type("(sleep 2; echo sle''eping) & sleep 1000\r")
            user.expect("sleeping\n")
            user.type("\x03")  # to the guest, not to us
            user.expect("# ")
            user.type("echo status $?\r")
            user.expect("status 130\n.*# ")
            resize(main, 24, 80)
            process.send_signal(signal.SIGWINCH)
            user.paste(64 << 10)
            user.type("\x01\x01")  # one Ctrl-A for the guest's line editor
            user.type("\x01x")
            assert process.wait(60) == 130
            assert process.stderr.read() == b""
            assert termios.tcgetattr(slave) == before
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


@pytest.mark.kvm_full
def test_a_session_on_a_pty(command):
    """`--serial pty`: whoever opens the path it names has the console, may leave and come back."""
    with subprocess.Popen(
        [*command, "--serial", "pty"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            path = process.stderr.readline().removeprefix("vmm: serial console at ").strip()
            first = os.open(path, os.O_RDWR | os.O_NOCTTY)
            user = Typist(first)
            user.log_in()
            assert user.run("echo $((6 * 7)) >/tmp/answer") == ""
            os.close(first)
            second = os.open(path, os.O_RDWR | os.O_NOCTTY)
            user = Typist(second)
            assert user.run("cat /tmp/answer") == "42\n"
            user.paste(4 << 10)
            os.close(second)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
            assert not Path(path).exists()
        finally:
            process.kill()


@pytest.mark.kvm
def test_a_paste_passes_through_the_terminal_whole(tmp_path):
    """64 KiB of all bytes but Ctrl-A, to a guest that echoes, while the window is resized: none is lost."""
    letters = random.Random(64)
    # Each byte takes this guest some exits, 15 times as dear in the emulated host.
    size = (8 if "VMM_TESTHOST" in os.environ else 64) << 10
    text = bytes(letters.choice([0, *range(2, 256)]) for _ in range(size))
    with terminal() as (main, slave):
        before = termios.tcgetattr(slave)
        process = subprocess.Popen(
            tiny_guest.command(tmp_path, "echo"),
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        try:
            assert os.read(main, 6) == b"hello\n"
            os.set_blocking(main, False)
            sent, seen, resized = 0, b"", 0
            deadline = time.monotonic() + 200
            while len(seen) < len(text):
                assert time.monotonic() < deadline, len(seen)
                read, write, _ = select.select([main], [main] if sent < len(text) else [], [], 1)
                if read:
                    seen += os.read(main, 65536)
                if write:
                    sent += os.write(main, text[sent : sent + 4096])
                if len(seen) > size // 8 * resized:
                    resized += 1
                    resize(main, 24 + resized, 80 + resized)
            assert seen == text
            assert resized == 8
            os.write(main, b"\x01x")
            assert process.wait(60) == 130
            assert process.stderr.read() == b""
            assert termios.tcgetattr(slave) == before
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
