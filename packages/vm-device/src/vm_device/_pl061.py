"""Arm PrimeCell general purpose input/output PL061 (DDI 0190): eight lines."""

import threading
from collections.abc import Callable
from typing import Final

import attrs

from vm_device import _primecell
from vm_device._errors import PlatformError
from vm_device._interrupt import Interrupt
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec, Trigger

_DATA_END: Final = 0x400  # GPIODATA is here 256 times: address bits 9:2 say which lines an access is about
_RIS, _MIS, _IC = 0x414, 0x418, 0x41C
_STORED: Final = {
    0x400: "direction",
    0x404: "level_sensitive",
    0x408: "both_edges",
    0x40C: "event",
    0x410: "enabled",
    0x420: "alternate",
}
LINES: Final = 8


@attrs.frozen
class Pl061State:
    """Saved state of a Pl061, version 1; each a byte, a bit a line.

    `outputs` is what was written, `inputs` what the outside drives, `edges` the edges not yet cleared; the
    others are registers: `direction` GPIODIR, `level_sensitive` GPIOIS, `both_edges` GPIOIBE, `event`
    GPIOIEV, `enabled` GPIOIE, `alternate` GPIOAFSEL.
    """

    outputs: int = 0
    inputs: int = 0
    edges: int = 0
    direction: int = 0
    level_sensitive: int = 0
    both_edges: int = 0
    event: int = 0
    enabled: int = 0
    alternate: int = 0
    version: int = 1


class Pl061:
    """Eight lines, each an input that the VMM drives or an output that the guest does.

    An edge is one of the line as it is seen, also when the guest changes its own output. Thread-safe.

    Args:
        interrupt: a level line, the sum of all eight.
        on_output: called with (line 0 .. 7, level) for each output line that changed, in the thread that
            changed it, without the lock.
    """

    SIZE = _primecell.SIZE
    """Bytes of MMIO: a page, as all PrimeCells have."""

    def __init__(
        self, interrupt: Interrupt, *, on_output: Callable[[int, bool], object] = lambda _line, _level: None
    ) -> None:
        self._interrupt = interrupt
        self._on_output = on_output
        self._lock = threading.Lock()
        self._level = False
        self._load(Pl061State())

    def _load(self, state: Pl061State) -> None:
        self._outputs, self._inputs, self._edges = state.outputs, state.inputs, state.edges
        self._registers: dict[str, int] = {name: getattr(state, name) for name in _STORED.values()}

    # -- the outside

    def set_input(self, line: int, level: bool) -> None:
        """Drive an input line; without effect while it is an output.

        Args:
            line: 0 .. 7.
            level: high or low.

        Raises:
            PlatformError: there is no such line.
        """
        if not 0 <= line < LINES:
            raise PlatformError("line", line, f"must be 0..{LINES - 1}")
        with self._lock:
            before = self._lines()
            self._inputs = self._inputs & ~(1 << line) | level << line
            self._changed(before)

    # -- the bus side

    def read(self, offset: int, size: int) -> int:
        """Read the register at `offset`; its low bytes for a narrow access."""
        with self._lock:
            if offset < _DATA_END:
                value = self._lines() & offset >> 2
            elif offset in _STORED:
                value = self._registers[_STORED[offset]]
            elif offset in (_RIS, _MIS):
                value = self._raw() & (self._registers["enabled"] if offset == _MIS else 0xFF)
            else:
                value = _primecell.identity(0x061, 0, offset)
        return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Write the register at `offset`; a narrow access has zeros in the rest."""
        value &= 0xFF
        with self._lock:
            before, driven = self._lines(), self._driven()
            if offset < _DATA_END:
                self._outputs = self._outputs & ~(offset >> 2) | value & offset >> 2
            elif offset in _STORED:
                self._registers[_STORED[offset]] = value
            elif offset == _IC:
                self._edges &= ~value
            self._changed(before)
            moved, now = driven ^ self._driven(), self._outputs
        for line in range(LINES):
            if moved >> line & 1:
                self._on_output(line, bool(now >> line & 1))

    # -- lines and interrupts

    def _driven(self) -> int:
        """The high ones of the lines that the guest drives."""
        return self._outputs & self._registers["direction"]

    def _lines(self) -> int:
        return self._driven() | self._inputs & ~self._registers["direction"]

    def _changed(self, before: int) -> None:
        """Take note of edges, and bring the interrupt line up to date."""
        now, registers = self._lines(), self._registers
        wanted = registers["both_edges"] | ~(now ^ registers["event"])
        self._edges |= (before ^ now) & wanted & ~registers["level_sensitive"] & 0xFF
        pending = bool(self._raw() & registers["enabled"])
        if pending != self._level:
            self._level = pending
            self._interrupt.set_level(pending)

    def _raw(self) -> int:
        registers = self._registers
        levels = ~(self._lines() ^ registers["event"]) & registers["level_sensitive"]
        return (levels | self._edges & ~registers["level_sensitive"]) & 0xFF

    # -- state and description

    def state(self) -> Pl061State:
        """Return the saved state."""
        with self._lock:
            return Pl061State(self._outputs, self._inputs, self._edges, **self._registers)

    @classmethod
    def from_state(
        cls,
        state: Pl061State,
        interrupt: Interrupt,
        *,
        on_output: Callable[[int, bool], object] = lambda _line, _level: None,
    ) -> "Pl061":
        """Rebuild the lines; a pending interrupt signals again, outputs are not reported.

        Raises:
            SavedStateError: unknown version or a value that is no byte.
        """
        check_saved(state, **dict.fromkeys(attrs.asdict(state), 0xFF))
        device = cls(interrupt, on_output=on_output)
        with device._lock:
            device._load(state)
            device._changed(device._lines())
        return device

    @staticmethod
    def describe(id: str = "gpio", base: int = 0x0903_0000, gsi: int = 39) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node of the lines at `base` (4 KiB) on `gsi`."""
        where = AddressRange(AddressSpace.MMIO, base, Pl061.SIZE)
        lines = (InterruptSpec(gsi, Trigger.LEVEL),)
        return DeviceNode(
            id, "gpio", (where,), lines, hid="ARMH0061", compatible=("arm,pl061", "arm,primecell")
        )
