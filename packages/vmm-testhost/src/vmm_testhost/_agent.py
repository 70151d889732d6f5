"""Runs as process 1 inside the emulated host: starts the command, relays its streams, reports its status.

Started with ``python -I -S``; imports only what the interpreter has built in, because each file read there
costs milliseconds. ``/run/vmm-testhost/run.py`` defines ARGV, CWD, ENV, TTY, STDIN. The port ``io`` carries
frames (type, length, payload; little-endian) both ways; the port ``stdin`` carries raw bytes inwards.
"""

import os
import select
import sys
import time

CHUNK = 32768  # the kernel takes at most this much in one write to a port (drivers/char/virtio_console.c)
DRAIN = 0.5  # seconds a finished command's own children may hold its output open


def port(name):
    """Open a virtio-serial port by name."""
    base = "/sys/class/virtio-ports"
    for entry in os.listdir(base):
        with open(f"{base}/{entry}/name") as file:
            if file.read().strip() == name:
                return os.open(f"/dev/{entry}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    raise OSError(f"no virtio port {name}")


def send(io, kind, payload=b""):
    """Write one frame, waiting for the outer side as long as it takes."""
    data = kind + len(payload).to_bytes(4, "little") + payload
    while data:
        try:
            data = data[os.write(io, data[:CHUNK]) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(io, select.POLLOUT)
            waiter.poll()


def set_size(fd, payload):
    """Give a terminal its size: rows and columns, two bytes each."""
    import fcntl

    fcntl.ioctl(fd, 0x5414, payload + bytes(4))  # TIOCSWINSZ


def spawn(run, fds):
    """Start the command in a session of its own; give its process id and our ends of its streams."""
    if run["TTY"]:
        ours, theirs = os.openpty()
        set_size(ours, run["TTY"])
    else:
        pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid:
        if run["TTY"]:
            os.close(theirs)
            return pid, {"in": ours, ours: b"o"}
        for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(fd)
        return pid, {"in": pipes[0][1], pipes[1][0]: b"o", pipes[2][0]: b"e"}
    try:
        if run["TTY"]:
            os.login_tty(theirs)
        else:
            os.setsid()
            for number, fd in enumerate((pipes[0][0], pipes[1][1], pipes[2][1])):
                os.dup2(fd, number)
        os.chdir(run["CWD"])
        os.execvpe(run["ARGV"][0], run["ARGV"], run["ENV"])
    except FileNotFoundError as err:
        os.write(2, f"vmm-testhost: {run['ARGV'][0]}: {err.strerror}\n".encode())
        os._exit(127)
    except OSError as err:
        os.write(2, f"vmm-testhost: {run['ARGV'][0]}: {err.strerror}\n".encode())
        os._exit(126)


class Agent:
    """The relay loop."""

    def __init__(self, run):
        self.run = run
        self.io = port("io")
        self.stdin = port("stdin") if run["STDIN"] else None
        self.frames = b""
        self.pending = b""
        self.status = None
        self.pid, streams = spawn(run, None)
        self.sink = streams.pop("in")
        self.outputs = streams
        os.set_blocking(self.sink, False)
        if self.stdin is None and not run["TTY"]:
            self.close_sink()
        send(self.io, b"r")

    def close_sink(self):
        """Give the command an end of file on stdin."""
        if self.sink is not None and not self.run["TTY"]:
            os.close(self.sink)
        self.sink = None

    def loop(self):
        """Relay until the command is dead and its output read to the end."""
        deadline = None
        while self.outputs:
            self.reap()
            if self.status is not None and deadline is None:
                deadline = time.monotonic() + DRAIN
            if deadline is not None and time.monotonic() > deadline:
                os.kill(-1, 9)  # from process 1: everything else
                deadline = time.monotonic() + DRAIN
            for fd, event in self.poller().poll(50):
                self.serve(fd, event)
        while self.status is None:
            self.reap()
            for fd, event in self.poller().poll(50):
                self.serve(fd, event)

    def poller(self):
        poller = select.poll()
        poller.register(self.io, select.POLLIN)
        for fd in self.outputs:
            poller.register(fd, select.POLLIN)
        if self.sink is not None:
            if self.pending:
                poller.register(self.sink, select.POLLOUT | (select.POLLIN if self.run["TTY"] else 0))
            elif self.stdin is not None:
                poller.register(self.stdin, select.POLLIN)
        return poller

    def reap(self):
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

    def serve(self, fd, event):
        if fd in self.outputs and event & ~select.POLLOUT:
            self.output(fd)
        elif fd == self.io:
            self.control()
        elif fd == self.stdin:
            self.input()
        if fd == self.sink and self.pending and event & ~select.POLLIN:
            self.feed()

    def output(self, fd):
        try:
            data = os.read(fd, CHUNK - 5)
        except OSError:  # EIO: the last user of a terminal has closed it
            data = b""
        if data:
            send(self.io, self.outputs[fd], data)
        else:
            del self.outputs[fd]
            if fd == self.sink:
                self.sink = None
            os.close(fd)

    def input(self):
        try:
            self.pending = os.read(self.stdin, CHUNK)
        except BlockingIOError:
            return
        if self.pending:
            self.feed()
        else:
            os.close(self.stdin)
            self.stdin = None
            if self.run["TTY"]:
                self.pending = b"\x04"
            else:
                self.close_sink()

    def feed(self):
        try:
            self.pending = self.pending[os.write(self.sink, self.pending) :]
        except BlockingIOError:
            return
        except OSError:  # the command has closed its stdin
            self.pending = b""
            self.close_sink()

    def control(self):
        try:
            data = os.read(self.io, CHUNK)
        except BlockingIOError:
            return
        if not data:  # the outer side is gone: so are we
            os._exit(1)
        self.frames += data
        while len(self.frames) >= 5:
            size = 5 + int.from_bytes(self.frames[1:5], "little")
            if len(self.frames) < size:
                return
            kind, payload = self.frames[:1], self.frames[5:size]
            self.frames = self.frames[size:]
            if kind == b"k" and self.status is None:
                try:
                    os.killpg(self.pid, payload[0])
                except ProcessLookupError:
                    pass
            elif kind == b"w" and self.run["TTY"] and self.sink is not None:
                set_size(self.sink, payload)


def main():
    """Run the command, write everything back, report, power off."""
    run = {}
    with open("/run/vmm-testhost/run.py") as file:
        exec(file.read(), run)
    agent = Agent(run)
    agent.loop()
    os.sync()
    send(agent.io, b"x", bytes([agent.status & 0xFF]))
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("o")
    time.sleep(60)


if __name__ == "__main__":
    sys.exit(main())
