"""Arm PrimeCell UART PL011 (DDI 0183), revision 1: FIFOs of 16 characters."""

from collections import deque
from collections.abc import Callable
from typing import Final

from vm_device import _primecell
from vm_device._interrupt import Interrupt
from vm_device._pl011_state import FIFO_SIZE, RESET, Pl011State, check_state
from vm_device._serial_tx import Transmitter, Writer
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec, Trigger

_DR, _RSR, _FR, _ILPR, _IBRD, _FBRD, _LCR_H, _CR = 0x000, 0x004, 0x018, 0x020, 0x024, 0x028, 0x02C, 0x030
_IFLS, _IMSC, _RIS, _MIS, _ICR, _DMACR = 0x034, 0x038, 0x03C, 0x040, 0x044, 0x048
_STORED: Final = {
    _ILPR: ("ilpr", 0xFF),
    _IBRD: ("ibrd", 0xFFFF),
    _FBRD: ("fbrd", 0x3F),
    _IFLS: ("ifls", 0x3F),
    _IMSC: ("imsc", 0x7FF),
    _DMACR: ("dmacr", 0x07),
}
_FR_TXFE, _FR_RXFF, _FR_RXFE = 0x80, 0x40, 0x10
_FR_PEER: Final = 0x07  # carrier, data set ready, clear to send: a terminal is always there
_FEN: Final = 0x10
_CR_BITS: Final = 0xFF87
_LOOP, _RECEIVES = 0x80, 0x201
_INT_RX, _INT_TX, _INT_RT, _INT_FE, _INT_BE, _INT_OE = 0x10, 0x20, 0x40, 0x80, 0x200, 0x400
_BREAK: Final = 0x500  # framing and break error of a zero character, as in UARTDR
_OVERRUN: Final = 0x800
# Receive FIFO levels of UARTIFLS: 1/8, 1/4, 1/2, 3/4, 7/8; the others are reserved.
_LEVELS: Final = (2, 4, 8, 12, 14, 14, 14, 14)


class Pl011(Transmitter):
    """A PL011 whose transmitter is never busy and whose receiver is fed by `enqueue`.

    It starts as firmware leaves it: 8N1 with FIFOs, enabled. No time passes inside the model: what is sent
    is gone at once, so that each character passes the transmit level and raises TX; the receive timeout is
    raised together with each arrival, and again by a read that leaves characters. Modem lines change in
    loopback only. Characters are sent also while CR says that the transmitter is off: early consoles write
    before anybody has enabled it. Registers answer at their aligned offsets, whatever the width of the
    access; other offsets read as zero and ignore writes.

    On a level line the level follows UARTMIS. On an edge line (an irqfd) an edge is sent when a cause appears
    and when the guest acknowledges one while others remain. Thread-safe. `out` is called under the device's
    lock; it may block the writing vCPU, but must not wait for another thread that calls into this device.

    Args:
        out: takes transmitted bytes: a callable, or an object with `write(bytes)`. An OSError loses those
            bytes (counted in `tx_lost`), the guest goes on.
        interrupt: the line.
        trigger: how the line signals.
        on_rx_space: called, without the lock, when there is room again after `enqueue` refused bytes.
        defer: as for `Serial16550`: given, output is collected up to a newline or 1024 bytes.
    """

    SIZE = _primecell.SIZE
    """Bytes of MMIO: a page, as all PrimeCells have."""

    def __init__(
        self,
        out: Callable[[bytes], object] | Writer,
        interrupt: Interrupt,
        *,
        trigger: Trigger = Trigger.LEVEL,
        on_rx_space: Callable[[], object] | None = None,
        defer: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__(out, defer)
        self._interrupt = interrupt
        self._edge = trigger is Trigger.EDGE
        self.on_rx_space = on_rx_space
        self._refused = False
        self._before = 0  # causes that were pending at the last look
        self._level = False
        self._load(RESET)

    def _load(self, state: Pl011State) -> None:
        self._registers: dict[str, int] = {name: getattr(state, name) for name, _ in _STORED.values()}
        self._lcr, self._cr, self._raw, self._errors = state.lcr, state.cr, state.raw, state.errors
        self._rx: deque[int] = deque(state.rx)

    # -- the bus side

    def read(self, offset: int, size: int) -> int:
        """Read the register at `offset`; its low bytes for a narrow access."""
        with self._lock:
            value = self._read32(offset)
            wake = self._take_space()
        if wake:
            wake()
        return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - BusDevice
        """Write the register at `offset`; a narrow access has zeros in the rest."""
        with self._lock:
            self._write32(offset, value)
            self._update()
            wake = self._take_space()
        if wake:
            wake()

    def _read32(self, offset: int) -> int:
        if offset == _DR:
            return self._read_char()
        if offset in _STORED:
            return self._registers[_STORED[offset][0]]
        simple = {
            _RSR: self._errors,
            _FR: self._flags(),
            _LCR_H: self._lcr,
            _CR: self._cr,
            _RIS: self._raw,
            _MIS: self._pending(),
        }
        return simple[offset] if offset in simple else _primecell.identity(0x011, 1, offset)

    def _write32(self, offset: int, value: int) -> None:
        if offset == _DR:
            self._send(value & 0xFF)
        elif offset == _RSR:
            self._errors = 0
        elif offset in _STORED:
            name, mask = _STORED[offset]
            self._registers[name] = value & mask
        elif offset == _LCR_H:
            if (value ^ self._lcr) & _FEN:  # the FIFO becomes a holding register, or the other way round
                self._rx.clear()
                self._received()
            self._lcr = value & 0xFF
        elif offset == _CR:
            self._control(value & _CR_BITS)
        elif offset == _ICR:
            self._raw &= ~value
            self._before = 0  # acknowledged: on an edge line what remains needs a new edge

    # -- interrupts

    def _pending(self) -> int:
        return self._raw & self._registers["imsc"]

    def _update(self) -> None:
        pending, before = self._pending(), self._before
        self._before = pending
        if self._edge:
            if pending & ~before:
                self._interrupt.trigger()
        elif bool(pending) != self._level:
            self._level = bool(pending)
            self._interrupt.set_level(self._level)

    # -- receiver

    def enqueue(self, data: bytes | bytearray | memoryview) -> int:
        """Feed received bytes.

        Returns:
            How many were accepted (0 .. len(data)); up to 16 wait in the FIFO, 1 without it, none in loopback
            or while the receiver is off. Offer the rest again when `on_rx_space` is called.
        """
        with self._lock:
            taken = bytes(data[: self._room()])
            self._refused = self._refused or len(taken) < len(data)
            self._arrive(taken)
            return len(taken)

    def enqueue_break(self) -> bool:
        """Receive a break condition; False when there is no room for it."""
        with self._lock:
            if not self._room():
                return False
            self._raw |= _INT_FE | _INT_BE
            self._arrive((_BREAK,))
            return True

    def _capacity(self) -> int:
        return FIFO_SIZE if self._lcr & _FEN else 1

    def _room(self) -> int:
        listens = self._cr & (_RECEIVES | _LOOP) == _RECEIVES
        return self._capacity() - len(self._rx) if listens else 0

    def _arrive(self, chars: bytes | tuple[int, ...]) -> None:
        if chars:
            self._rx.extend(chars)
            self._raw |= _INT_RT | (_INT_RX if self._at_level() else 0)
            self._before &= ~(_INT_RT | _INT_RX)  # new data: a new edge
            self._update()

    def _at_level(self) -> bool:
        return len(self._rx) >= (_LEVELS[self._registers["ifls"] >> 3] if self._lcr & _FEN else 1)

    def _received(self) -> None:
        """Bring the receive interrupts to what the FIFO holds after characters have left it."""
        if not self._at_level():
            self._raw &= ~_INT_RX
        self._raw = self._raw | _INT_RT if self._rx else self._raw & ~_INT_RT

    def _read_char(self) -> int:
        if not self._rx:
            return 0
        char = self._rx.popleft()
        self._errors = char >> 8
        self._received()
        self._before = 0
        self._update()
        return char

    def _take_space(self) -> Callable[[], object] | None:
        if not self._refused or self._rx or not self._room():
            return None
        self._refused = False
        return self.on_rx_space

    # -- modem control and transmitter

    def _flags(self) -> int:
        flags = _FR_TXFE | (self._modem(self._cr) if self._cr & _LOOP else _FR_PEER)
        flags |= 0 if self._rx else _FR_RXFE
        return flags | (_FR_RXFF if len(self._rx) >= self._capacity() else 0)

    @staticmethod
    def _modem(cr: int) -> int:
        # Loopback wires RTS to CTS, DTR to DSR, OUT1 to DCD, OUT2 to RI.
        return (cr >> 11 & 1) | (cr >> 10 & 1) << 1 | (cr >> 12 & 1) << 2 | (cr >> 13 & 1) << 8

    def _control(self, value: int) -> None:
        before = self._modem(self._cr) if self._cr & _LOOP else _FR_PEER
        after = self._modem(value) if value & _LOOP else _FR_PEER
        changed = before ^ after
        # UARTRIS: RI is bit 0, CTS 1, DCD 2, DSR 3.
        self._raw |= changed >> 8 | (changed & 1) << 1 | changed & 4 | (changed & 2) << 2
        self._cr = value

    def _send(self, char: int) -> None:
        if not self._cr & _LOOP:
            self._tx.put(char)
        elif len(self._rx) < self._capacity():
            self._arrive((char,))
        else:
            self._rx[-1] |= _OVERRUN
            self._raw |= _INT_OE
        self._raw |= _INT_TX
        self._before &= ~_INT_TX

    # -- state and description

    def state(self) -> Pl011State:
        """Return the saved state; collected output is flushed first."""
        with self._lock:
            self.flush()
            return Pl011State(
                lcr=self._lcr,
                cr=self._cr,
                raw=self._raw,
                errors=self._errors,
                rx=tuple(self._rx),
                **self._registers,
            )

    @classmethod
    def from_state(
        cls,
        state: Pl011State,
        out: Callable[[bytes], object] | Writer,
        interrupt: Interrupt,
        *,
        trigger: Trigger = Trigger.LEVEL,
        on_rx_space: Callable[[], object] | None = None,
        defer: Callable[[Callable[[], None]], object] | None = None,
    ) -> "Pl011":
        """Rebuild a UART; arguments as for the class. A pending cause signals again on the new line.

        Raises:
            SavedStateError: unknown version or impossible register values.
        """
        check_state(state)
        uart = cls(out, interrupt, trigger=trigger, on_rx_space=on_rx_space, defer=defer)
        with uart._lock:
            uart._load(state)
            uart._update()
        return uart

    @staticmethod
    def describe(
        id: str = "uart0",  # noqa: A002 - the node's field
        base: int = 0x0900_0000,
        gsi: int = 33,
        *,
        trigger: Trigger = Trigger.LEVEL,
        uid: int = 0,
    ) -> DeviceNode:
        """Return the platform node of a UART at `base` (4 KiB) on `gsi`.

        Raises:
            PlatformError: base or gsi out of range.
        """
        where = AddressRange(AddressSpace.MMIO, base, Pl011.SIZE)
        lines = (InterruptSpec(gsi, trigger),)
        return DeviceNode(
            id, "serial", (where,), lines, hid="ARMH0011", compatible=("arm,pl011", "arm,primecell"), uid=uid
        )
