"""The QEMU command line of the emulated host, and the process."""

import contextlib
import dataclasses
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ._apt import find_tool
from ._arch import DEFAULT, Architecture
from ._errors import SetupError

# The same on every board.
COMMON = "-nodefaults -no-user-config -display none -no-reboot"
END = 2.0  # seconds between QEMU's closed ports and its end


@dataclasses.dataclass(frozen=True)
class Machine:
    """What one QEMU is started with."""

    kernel: Path
    initramfs: Path
    console: Path
    memory: int
    cpus: int
    shares: Sequence[tuple[str, Path]]
    kernel_args: str
    extra: Sequence[str]
    arch: Architecture = DEFAULT
    userland: Path | None = None


def escape(value: str) -> str:
    """Double the commas, which separate a QEMU option's fields."""
    return value.replace(",", ",,")


def command_line(machine: Machine, qemu: str, io: int, stdin: int | None) -> list[str]:
    """Return QEMU's arguments; ``io`` and ``stdin`` are connected sockets it inherits."""
    argv = [
        qemu,
        *machine.arch.machine.split(),
        *COMMON.split(),
        "-m",
        f"{machine.memory}M",
        "-smp",
        str(machine.cpus),
    ]
    argv += [
        "-kernel",
        str(machine.kernel),
        "-initrd",
        str(machine.initramfs),
        "-append",
        f"{machine.arch.cmdline} {machine.kernel_args}".strip(),
    ]
    argv += ["-chardev", f"file,id=con,path={escape(str(machine.console))}", "-serial", "chardev:con"]
    argv += ["-device", "virtio-serial-pci,max_ports=4"]
    for number, (name, fd) in enumerate((("io", io), ("stdin", stdin)), start=1):
        if fd is not None:
            argv += ["-chardev", f"socket,id={name},fd={fd}"]
            argv += ["-device", f"virtserialport,chardev={name},name={name},nr={number}"]
    sharing = "security_model=none,multidevs=remap"
    argv += ["-virtfs", f"local,path=/,mount_tag=hostroot,readonly=on,{sharing}"]
    if machine.userland is not None:
        argv += [
            "-virtfs",
            f"local,path={escape(str(machine.userland))},mount_tag=userland,readonly=on,{sharing}",
        ]
    for tag, path in machine.shares:
        argv += ["-virtfs", f"local,path={escape(str(path))},mount_tag={tag},{sharing}"]
    return [*argv, *machine.extra]


class Qemu:
    """A running QEMU that dies with us, and the outer ends of its ports."""

    def __init__(self, machine: Machine, *, stdin: bool, log: Path) -> None:
        arch = machine.arch
        qemu = find_tool(arch.qemu)
        if qemu is None:
            raise SetupError(f"{arch.qemu} is missing", f"sudo apt-get install {arch.package}")
        self.io, io = socket.socketpair()
        self.stdin: socket.socket | None = None
        inner: socket.socket | None = None
        if stdin:
            self.stdin, inner = socket.socketpair()
        fds = [end.fileno() for end in (io, inner) if end is not None]
        argv = command_line(machine, qemu, io.fileno(), inner.fileno() if inner is not None else None)
        # util-linux's setpriv (essential on Debian) asks the kernel to kill QEMU when we die, however we die.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=fds,
                start_new_session=True,  # a terminal's Ctrl-C is for the command inside
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        io.close()
        if inner is not None:
            inner.close()

    def wait(self) -> None:
        """Let QEMU end by itself, for a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END)

    def close(self) -> None:
        """Kill QEMU if it is still there, reap it, close the ports."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.io.close()
        if self.stdin is not None:
            self.stdin.close()
