"""The description that each architecture gives of its host."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from vmm_testhost._kernel import DebianKernel


@dataclasses.dataclass(frozen=True)
class Host:
    """What a launch is made of, fetched and unpacked.

    Attributes:
        kernel: the host's kernel and its modules.
        image: the file QEMU starts.
        busybox: a static one that runs in the host.
        python: the interpreter inside, for the agent.
        userland: programs that lie over this machine's files inside; None where this machine's own run.
    """

    kernel: DebianKernel
    image: Path
    busybox: Path
    python: str
    userland: Path | None = None


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of emulated host.

    Attributes:
        name: as ``uname -m`` says.
        qemu: the program that emulates it.
        tools: Debian packages a launch needs, and the program by which each is known.
        machine: QEMU's arguments for board and processor.
        cmdline: the kernel's command line.
        modules: what is inserted before the root is mounted.
        find_host: fetches what is missing.
    """

    name: str
    qemu: str
    tools: Mapping[str, str]
    machine: str
    cmdline: str
    modules: tuple[str, ...]
    find_host: Callable[[], Host]

    @property
    def package(self) -> str:
        """Debian's package of `qemu`."""
        return next(package for package, program in self.tools.items() if program == self.qemu)
