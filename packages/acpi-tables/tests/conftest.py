"""Fixtures shared by the tests: a sample machine, and ACPICA's compiler and interpreter as oracles."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    InterruptSpec,
    IoApicNode,
    MemoryNode,
    Platform,
    RegisterSpec,
)


def _port(base: int, size: int = 1) -> AddressRange:
    return AddressRange(AddressSpace.PIO, base, size)


def _virtio(number: int) -> DeviceNode:
    window = AddressRange(AddressSpace.MMIO, 0xD000_0000 + 0x1000 * number, 0x1000)
    lines = (InterruptSpec(5 + number),)
    return DeviceNode(f"virtio{number}", "virtio_mmio", (window,), lines, hid="LNRO0005", uid=number)


@pytest.fixture
def machine() -> Platform:
    """The reference machine: two processors, COM1, two virtio-mmio devices."""
    com1 = DeviceNode("com1", "serial", (_port(0x3F8, 8),), (InterruptSpec(4),), hid="PNP0501")
    hidden = DeviceNode("boot-timer", "timer", (_port(0x5F0),))
    return Platform(
        arch="x86_64",
        cpus=(CpuNode(0, 0), CpuNode(1, 1)),
        memory=(MemoryNode(0, 128 << 20),),
        devices=(com1, hidden, _virtio(0), _virtio(1)),
        ioapics=(IoApicNode(0, 0xFEC0_0000),),
        reset=RegisterSpec(_port(0x602), 1),
        sleep_control=_port(0x600),
        sleep_status=_port(0x601),
    )


class Iasl:
    """Runs iasl in a directory of its own; every complaint is an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _run(self, *words: str) -> str:
        done = subprocess.run(["iasl", *words], cwd=self.folder, capture_output=True, text=True, timeout=240)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        assert "Warning" not in output.replace("0 Warnings", ""), output
        assert "Error" not in output.replace("0 Errors", ""), output
        return output

    def disassemble(self, table: bytes) -> str:
        """Return the ASL or data-table source iasl makes of a table."""
        (self.folder / "table.dat").write_bytes(table)
        self._run("-d", "table.dat")
        return (self.folder / "table.dsl").read_text()

    def assemble(self, source: str, *words: str) -> bytes:
        """Return the table iasl makes of a source, warnings counted as errors; `words` are more options."""
        (self.folder / "again.dsl").write_text(source)
        self._run("-we", *words, "-p", "again", "again.dsl")
        return (self.folder / "again.aml").read_bytes()

    def assemble_loosely(self, source: str) -> bytes:
        """Return the table iasl makes of a source that people write: remarks pass, names stay as they are."""
        (self.folder / "source.asl").write_text(source)
        done = subprocess.run(
            ["iasl", "-vs", "-on", "-p", "source", "source.asl"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return (self.folder / "source.aml").read_bytes()

    def round_trip(self, table: bytes) -> bytes:
        """Disassemble and assemble again."""
        return self.assemble(self.disassemble(table))


@pytest.fixture(scope="session")
def iasl(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Iasl]:
    """A maker of iasl runners, each in a fresh directory; skips where acpica-tools is not installed."""
    if shutil.which("iasl") is None:
        pytest.skip("iasl (acpica-tools) is not installed")
    return lambda: Iasl(tmp_path_factory.mktemp("iasl"))


@pytest.fixture(scope="session")
def interpret(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, list[str]], list[str]]:
    """Evaluates objects of a DSDT in acpiexec, the interpreter Linux has too; skips where there is none."""
    if shutil.which("acpiexec") is None:
        pytest.skip("acpiexec (acpica-tools) is not installed")

    def run(table: bytes, commands: list[str]) -> list[str]:
        """Return what acpiexec says of each."""
        file = tmp_path_factory.mktemp("acpiexec") / "dsdt.aml"
        file.write_bytes(table)
        words = ["acpiexec", "-b", ";".join(f"evaluate {command}" for command in commands), file]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, cwd=file.parent)
        parts = re.split(r"^Evaluating ", done.stdout + done.stderr, flags=re.M)[1:]
        assert len(parts) == len(commands), done.stdout + done.stderr
        return parts

    return run


@pytest.fixture(scope="session")
def evaluate(interpret: Callable[[bytes, list[str]], list[str]]) -> Callable[..., list[int | None]]:
    """Evaluates objects of a DSDT to integers; None for another type."""

    def run(table: bytes, commands: list[str]) -> list[int | None]:
        """Return the integer of each command's result."""
        found = [
            re.search(r"^  \[Integer\] = ([0-9A-F]{16})$", part, re.M) for part in interpret(table, commands)
        ]
        return [int(match[1], 16) if match else None for match in found]

    return run
