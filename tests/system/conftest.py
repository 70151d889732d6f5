"""Machines for the system tests: our VMM, a stock kernel, our init."""

import gc
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import guest
import pytest
from vmm_reference import DiskConfig, End, PlatformDevice, VmConfig, Vmm

CMDLINE = f"console={guest.CONSOLE} quiet nowatchdog panic=-1 pci=off rdinit=/vmm-init"


class Console:
    """What the guest printed so far, with waiting."""

    def __init__(self) -> None:
        self._text = ""
        self._more = threading.Condition()

    def write(self, data: bytes) -> None:
        with self._more:
            self._text += data.decode("ascii", "replace").replace("\r", "")
            self._more.notify_all()

    @property
    def text(self) -> str:
        return self._text

    def expect(self, pattern: str, timeout: float = 120) -> re.Match[str]:
        """Wait for a match, and return it."""
        with self._more:
            found = self._more.wait_for(lambda: re.search(pattern, self._text), timeout)
        assert found, f"the guest never printed {pattern!r}; it printed:\n{self._text}"
        return found


class Running:
    """A booted machine and its console."""

    def __init__(self, vmm: Vmm, console: Console) -> None:
        self.vmm, self.console = vmm, console

    def send(self, text: str) -> None:
        """Type `text`, as fast as the serial port takes it."""
        port = self.vmm.machine.serial
        assert port is not None
        data = text.encode()
        deadline = time.monotonic() + 60
        while data and time.monotonic() < deadline:
            data = data[port.enqueue(data) :]
            time.sleep(0.01)
        assert not data

    def end(self, timeout: float = 120) -> End:
        """Wait for the machine's end."""
        end = self.vmm.wait(timeout)
        assert end is not None, f"the guest did not end; it printed:\n{self.console.text}"
        return end


@pytest.fixture
def arch() -> str:
    """Return this host's architecture: that of the guests, which `both_hosts` makes instances for."""
    return guest.ARCH


@pytest.fixture
def boot(tmp_path: Path, arch: str) -> Callable[..., object]:
    """Return a context manager that boots a guest with our init, and then a busybox shell script.

    `prepare` is called with the machine just before it runs.
    """
    assert arch == guest.ARCH

    @contextmanager
    def booted(
        kernel: guest.Guest | None = None,
        jobs: str = "",
        *,
        modules: Sequence[str] = guest.MODULES,
        devices: Sequence[PlatformDevice] = (),
        disks: Sequence[DiskConfig] = (),
        script: str | None = None,
        programs: Sequence[str] = (),
        prepare: Callable[[Vmm], object] = lambda _: None,
        **config: object,
    ) -> Iterator[Running]:
        chosen = kernel or guest.debian_guest()
        image = tmp_path / "initramfs"
        below = b"" if script is None else guest.busybox_image(script, programs)
        image.write_bytes(guest.initramfs(chosen, modules=modules, image=below))
        words = [CMDLINE, jobs] if script is None else [CMDLINE, jobs, "vmm.end=exec"]
        console = Console()
        machine = VmConfig(
            kernel=chosen.image, initramfs=image, cmdline=" ".join(words), disks=disks, **config
        )
        with Vmm(machine, serial_out=console.write, devices=devices) as vmm:
            prepare(vmm)
            vmm.boot()
            yield Running(vmm, console)

    return booted


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Compare what this process holds before and after a test: descriptors, threads, guests' memory."""

    def state() -> tuple[list[str], list[str], int]:
        gc.collect()
        threads = sorted(thread.name for thread in threading.enumerate() if "pytest" not in thread.name)
        maps = Path("/proc/self/maps").read_text()
        return sorted(os.listdir("/proc/self/fd")), threads, maps.count("/memfd:")

    before = state()
    yield
    assert state() == before


@pytest.fixture
def console() -> Console:
    """Return a console to read from."""
    return Console()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return an ext4 image."""
    path = tmp_path / "disk.raw"
    guest.root_disk(path, 16 << 20)
    return path


@pytest.fixture
def inbox() -> "queue.Queue[int]":
    """Return a queue for what a test's own device is told."""
    return queue.Queue()
