"""A vCPU and memory slots without a hypervisor, for tests of VMMs and of this package.

They implement the Protocols: what holds for `SoftVcpu` (kicks, completed accesses, all-ones for what
nobody answers) is what a VMM may rely on with every backend.
"""

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from vm_hypervisor._errors import SlotError, VcpuStateError
from vm_hypervisor._exits import Exit, Halt, Kicked, MmioRead, MmioWrite, PioRead, PioWrite
from vm_hypervisor._protocols import VmOps

if TYPE_CHECKING:
    from vm_hypervisor._protocols import Vcpu

__all__ = ("GuestProgram", "RecordingOps", "Slot", "SoftSlots", "SoftVcpu")

GuestProgram: TypeAlias = Callable[[], Generator[Exit | None, bytes, None]]
"""A guest: a generator that yields None for an instruction, an I/O exit for an access (a read's bytes
are sent back to it), any other exit to leave the guest; returning is a halt."""

_INSTRUCTION_SECONDS: Final = 1e-4
_PAGE: Final = 4096
_Reads: TypeAlias = PioRead | MmioRead


class SoftVcpu:
    """A `Vcpu` whose guest is a Python generator.

    Args:
        index: position in the VM.
        program: the guest.
    """

    def __init__(self, index: int, program: GuestProgram) -> None:
        self._index = index
        self._guest = program()
        self._started = False
        self._unanswered: _Reads | None = None
        self._answer = b""
        self._kicked = threading.Event()
        self._running = threading.Lock()
        self.retired = 0
        """Instructions and accesses completed so far."""
        self.closed = False

    @property
    def index(self) -> int:
        """Position in the VM."""
        return self._index

    def run(self, ops: VmOps | None = None) -> Exit:
        """Run the guest; see `Vcpu.run`.

        Raises:
            VcpuStateError: another thread runs it, or it is closed.
        """
        if self.closed or not self._running.acquire(blocking=False):
            raise VcpuStateError(f"run: vCPU {self._index} is {'closed' if self.closed else 'running'}")
        try:
            return self._run(ops)
        finally:
            self._running.release()

    def _run(self, ops: VmOps | None) -> Exit:
        while True:
            self._complete()
            if self._kicked.is_set():
                self._kicked.clear()
                return Kicked()
            exit_ = self._step()
            if exit_ is None:
                self.retired += 1
                self._kicked.wait(_INSTRUCTION_SECONDS)
            elif ops is None or not self._serve(ops, exit_):
                return exit_

    def _step(self) -> Exit | None:
        answer, self._answer = self._answer, b""
        try:
            exit_ = self._guest.send(answer) if self._started else next(self._guest)
        except StopIteration:
            return Halt()
        self._started = True
        if isinstance(exit_, PioRead | MmioRead):
            self._unanswered = exit_
        return exit_

    def _complete(self) -> None:
        """Give a read that nobody answered all ones, as an open bus does."""
        if self._unanswered is not None:
            self._answer = b"\xff" * _length(self._unanswered)
            self._unanswered = None

    def _serve(self, ops: VmOps, exit_: Exit) -> bool:
        match exit_:
            case PioRead(port, size, count):
                self.reply(b"".join(_bytes(ops.pio_read(port, size), size) for _ in range(count)))
            case MmioRead(addr, size):
                self.reply(_bytes(ops.mmio_read(addr, size), size))
            case PioWrite(port, size, data):
                for start in range(0, len(data), size):
                    ops.pio_write(port, size, int.from_bytes(data[start : start + size], "little"))
            case MmioWrite(addr, data):
                ops.mmio_write(addr, len(data), int.from_bytes(data, "little"))
            case _:
                return False
        self.retired += 1
        return True

    def reply(self, data: bytes) -> None:
        """Answer the last read.

        Raises:
            VcpuStateError: no read waits for an answer.
            ValueError: the length is not that of the read.
        """
        if self._unanswered is None:
            raise VcpuStateError(f"reply: no read of vCPU {self._index} waits for an answer")
        if len(data) != _length(self._unanswered):
            raise ValueError(f"reply: {len(data)} bytes, the read takes {_length(self._unanswered)}")
        self._answer, self._unanswered = data, None

    def kick(self) -> None:
        """Make the current or next `run` return `Kicked`."""
        self._kicked.set()

    def close(self) -> None:
        """End the guest.

        Raises:
            VcpuStateError: it is running.
        """
        if self._running.locked():
            raise VcpuStateError(f"close: vCPU {self._index} is running; stop it first")
        self.closed = True
        self._guest.close()


def _length(read: _Reads) -> int:
    return read.size * read.count if isinstance(read, PioRead) else read.size


def _bytes(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


class RecordingOps:
    """`VmOps` that note every access and answer reads with what was put into `answers`.

    `log` holds ("pio" or "mmio", "read" or "write", address, size, value) in order. `answers` maps
    (space, address) to the values to give, first to last; all ones when there is none.
    """

    def __init__(self) -> None:
        """Start with an empty log and no answers."""
        self.log: list[tuple[str, str, int, int, int]] = []
        self.answers: dict[tuple[str, int], list[int]] = {}

    def _read(self, space: str, address: int, size: int) -> int:
        waiting = self.answers.get((space, address))
        value = (waiting.pop(0) if waiting else -1) & (1 << 8 * size) - 1
        self.log.append((space, "read", address, size, value))
        return value

    def pio_read(self, port: int, size: int, /) -> int:
        """Note and answer a port read."""
        return self._read("pio", port, size)

    def pio_write(self, port: int, size: int, value: int, /) -> None:
        """Note a port write."""
        self.log.append(("pio", "write", port, size, value))

    def mmio_read(self, address: int, size: int, /) -> int:
        """Note and answer an MMIO read."""
        return self._read("mmio", address, size)

    def mmio_write(self, address: int, size: int, value: int, /) -> None:
        """Note an MMIO write."""
        self.log.append(("mmio", "write", address, size, value))


@attrs.frozen
class Slot:
    """A memory slot: guest `base`, `size` in bytes, `host_address`, and flags `read_only`, `log_dirty`."""

    base: int
    size: int
    host_address: int
    read_only: bool
    log_dirty: bool


class SoftSlots:
    """The slot calls of `Vm` with KVM's rules: page alignment, no overlap, no resizing, `most` slots."""

    def __init__(self, most: int = 32) -> None:
        """Accept slot numbers 0 … `most` - 1."""
        self._most = most
        self.slots: dict[int, Slot] = {}
        self.refuse = False
        """Refuse the next call, and every one until it is False again."""

    def set_memory_slot(
        self,
        slot: int,
        base: int,
        size: int,
        host_address: int,
        *,
        read_only: bool = False,
        log_dirty: bool = False,
    ) -> None:
        """Take a slot; see `Vm.set_memory_slot`."""
        reason = self._refusal(slot, base, size, host_address)
        if reason:
            raise SlotError(slot, base, size, reason)
        self.slots[slot] = Slot(base, size, host_address, read_only, log_dirty)

    def _refusal(self, slot: int, base: int, size: int, host_address: int) -> str:
        if self.refuse:
            return "refused, as the test asked"
        if not 0 <= slot < self._most:
            return f"slot numbers end at {self._most - 1}"
        if size <= 0 or base % _PAGE or size % _PAGE or host_address % _PAGE:
            return f"base, size and host address {host_address:#x} must be multiples of {_PAGE:#x}"
        for number, other in self.slots.items():
            if number == slot or (base < other.base + other.size and other.base < base + size):
                return f"overlaps slot {number} at {other.base:#x}"
        return ""

    def remove_memory_slot(self, slot: int) -> None:
        """Take a slot away; see `Vm.remove_memory_slot`."""
        if self.refuse or slot not in self.slots:
            raise SlotError(slot, 0, 0, "refused, as the test asked" if self.refuse else "unknown slot")
        del self.slots[slot]


if TYPE_CHECKING:  # `make lint` shows by these that the classes are what the Protocols ask for
    _VCPU: type[Vcpu] = SoftVcpu
    _OPS: type[VmOps] = RecordingOps
