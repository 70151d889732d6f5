"""Runs as process 1 inside the emulated host: starts the command, relays its streams, reports its status.

Started with ``python -I -S``; imports only what the interpreter has built in, because each file read there
costs milliseconds. ``/run/vmm-testhost/run.py`` defines ARGV, CWD, ENV, TTY, STDIN. The port ``io`` carries
frames (type, length, payload; little-endian) both ways; the port ``stdin`` carries raw bytes inwards.

Frames inwards: ``k`` signal number for the command's process group, ``w`` rows and columns of the terminal,
``z`` how many bytes stdin had when it ended (QEMU loses bytes in flight when a port's far end closes), ``n``
for an interrupt of every CPU (see PULSE in _relay.py).
Frames outwards: ``r`` the command was started, ``o`` and ``e`` its stdout and stderr, ``x`` its exit status.
"""

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, a quarter of a second in here
import os
import select
import time

CHUNK = 32768  # the kernel takes at most this much in one write to a port (drivers/char/virtio_console.c)
DRAIN = 0.5  # seconds a finished command's own children may hold its output open
PORTS = "/sys/class/virtio-ports"
INSIDE = "/run/vmm-testhost"
TIOCSWINSZ = 0x5414
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)  # and a command would inherit that


def open_port(name: str) -> int:
    """Open a virtio-serial port by name; the kernel lets each be open once."""
    for entry in os.listdir(PORTS):  # noqa: PTH208 - pathlib costs a second of import in here
        with open(f"{PORTS}/{entry}/name") as file:
            if file.read().strip() == name:
                return os.open(f"/dev/{entry}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    raise OSError(f"no port {name} in {PORTS}")


def send(io: int, kind: bytes, payload: bytes = b"") -> None:
    """Write one frame, waiting for the outer side as long as it takes."""
    data = kind + len(payload).to_bytes(4, "little") + payload
    while data:
        try:
            data = data[os.write(io, data[:CHUNK]) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(io, select.POLLOUT)
            waiter.poll()


def set_size(fd: int, size: bytes) -> None:
    """Give a terminal its size: rows and columns, two bytes each."""
    import fcntl  # noqa: PLC0415 - only runs with a terminal pay for it

    fcntl.ioctl(fd, TIOCSWINSZ, size + bytes(4))


def execute(argv: list[str], cwd: str, env: dict[str, str]) -> None:
    """Become the command; never returns."""
    status = 126
    for number in IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.chdir(cwd)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - the shell, if any, is the caller's
    except OSError as err:
        status = 127 if isinstance(err, FileNotFoundError) else 126
        os.write(2, f"vmm-testhost: {argv[0]}: {err.strerror} (working directory {cwd})\n".encode())
    finally:
        os._exit(status)


class Agent:
    """The command and the relay loop around it."""

    def __init__(self, argv: list[str], cwd: str, env: dict[str, str], size: bytes, with_stdin: bool) -> None:
        self.command = (argv, cwd, env)
        self.terminal = bool(size)
        self.io = open_port("io")
        self.stdin = open_port("stdin") if with_stdin else -1  # -1: not there, or at its end
        self.frames = b""
        self.pending = b""  # read from stdin, not yet taken by the command
        self.taken = 0  # bytes read from stdin
        self.total = -1  # bytes it will have been at its end, once known
        self.status = -1
        self.sink = -1
        self.outputs: dict[int, bytes] = {}  # what the command writes: our end, frame type
        self.pid = self.start_terminal(size) if size else self.start_pipes()
        os.set_blocking(self.sink, False)
        if self.stdin < 0:
            self.end_input()
        send(self.io, b"r")

    def start_pipes(self) -> int:
        """Start the command on three pipes, in a session of its own."""
        (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, fd in enumerate((in_r, out_w, err_w)):
                os.dup2(fd, number)
            execute(*self.command)
        for fd in (in_r, out_w, err_w):
            os.close(fd)
        self.sink, self.outputs = in_w, {out_r: b"o", err_r: b"e"}
        return pid

    def start_terminal(self, size: bytes) -> int:
        """Start the command on a terminal of that size."""
        ours, theirs = os.openpty()
        set_size(ours, size)
        pid = os.fork()
        if pid == 0:
            os.login_tty(theirs)
            execute(*self.command)
        os.close(theirs)
        self.sink, self.outputs = ours, {ours: b"o"}
        return pid

    def loop(self) -> None:
        """Relay until the command is dead and its output read to the end."""
        deadline = 0.0
        while self.outputs or self.status < 0:
            for fd, event in self.poller().poll(50):
                self.serve(fd, event)
            self.reap()
            now = time.monotonic()
            if self.status < 0:
                deadline = now + DRAIN
            elif now > deadline:
                if os.getpid() == 1:  # elsewhere (in a test) -1 would mean the whole machine
                    os.kill(-1, 9)
                deadline = now + DRAIN

    def poller(self) -> select.poll:
        """Watch what can make progress now."""
        poller = select.poll()
        poller.register(self.io, select.POLLIN)
        for fd in self.outputs:
            poller.register(fd, select.POLLIN)
        if self.sink >= 0 and self.pending:
            poller.register(self.sink, select.POLLOUT | (select.POLLIN if self.terminal else 0))
        elif self.sink >= 0 and self.stdin >= 0:
            poller.register(self.stdin, select.POLLIN)
        return poller

    def serve(self, fd: int, event: int) -> None:
        """Handle one event."""
        if fd in self.outputs and event & ~select.POLLOUT:
            self.output(fd)
        elif fd == self.io:
            self.control()
        elif fd == self.stdin:
            self.input()
        elif fd == self.sink:
            self.feed()

    def reap(self) -> None:
        """Collect the dead; process 1 inherits every orphan."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def output(self, fd: int) -> None:
        """Pass on what the command wrote."""
        try:
            data = os.read(fd, CHUNK - 5)
        except OSError:  # EIO: the last user of a terminal has closed it
            data = b""
        if data:
            send(self.io, self.outputs[fd], data)
            return
        del self.outputs[fd]
        os.close(fd)
        if fd == self.sink:
            self.sink = -1

    def input(self) -> None:
        """Take bytes for the command from the outer side."""
        try:
            self.pending = os.read(self.stdin, CHUNK)
        except BlockingIOError:
            return
        self.taken += len(self.pending)
        self.feed()

    def feed(self) -> None:
        """Give the command what it has room for."""
        try:
            self.pending = self.pending[os.write(self.sink, self.pending) :]
        except BlockingIOError:
            return
        except OSError:  # the command has closed its stdin
            self.pending = b""
            self.total = self.taken
        if self.stdin >= 0 and self.taken == self.total and not self.pending:
            self.end_input()

    def end_input(self) -> None:
        """Give the command an end of file; what comes later is not taken."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
        if self.terminal:
            self.pending = b"\x04"
        elif self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def control(self) -> None:
        """Take frames from the outer side; when that is gone, so are we."""
        try:
            data = os.read(self.io, CHUNK)
        except BlockingIOError:
            return
        if not data:
            power_off()
        self.frames += data
        while len(self.frames) >= 5:
            size = 5 + int.from_bytes(self.frames[1:5], "little")
            if len(self.frames) < size:
                return
            self.frame(self.frames[:1], self.frames[5:size])
            self.frames = self.frames[size:]

    def frame(self, kind: bytes, payload: bytes) -> None:
        """Obey one frame."""
        if kind == b"k" and self.status < 0:
            try:
                os.killpg(self.pid, payload[0])
            except ProcessLookupError:  # between fork and setsid there is no such group yet
                os.kill(self.pid, payload[0])
        elif kind == b"z" and self.sink >= 0:
            self.total = int.from_bytes(payload, "little")
            self.feed()
        elif kind == b"w" and self.terminal and self.sink >= 0:
            set_size(self.sink, payload)
        elif kind == b"n":
            interrupt_all()


def interrupt_all() -> None:
    """Have every CPU take an interrupt, by going there: the frame's own reaches only one of them."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) > 1:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
        os.sched_setaffinity(0, cpus)


def power_off() -> None:
    """Switch the machine off."""
    os.sync()
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("o")
    time.sleep(60)


def main() -> None:
    """Run the command, pass everything on, write the files back, report, power off."""
    run: dict[str, object] = {}
    with open(f"{INSIDE}/run.py") as file:
        exec(file.read(), run)  # noqa: S102 - written by our own outer half; no parser needs importing
    agent = Agent(run["ARGV"], run["CWD"], run["ENV"], run["TTY"], run["STDIN"])  # type: ignore[arg-type]
    agent.loop()
    os.sync()
    send(agent.io, b"x", bytes([agent.status & 0xFF]))
    power_off()


if __name__ == "__main__":
    main()
