"""16550A UART, after National Semiconductor's PC16550D data sheet (June 1995)."""

from collections import deque
from collections.abc import Callable
from typing import Final

import vm_device  # whose names load when they are used
from vm_device._interrupt import Interrupt
from vm_device._serial_tx import Transmitter, Writer
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec, Trigger

FIFO_SIZE: Final = 16
_TRIGGER_LEVELS: Final = (1, 4, 8, 14)

# Interrupt enable register, and the matching bits of the pending mask (CTI is the FIFO's character timeout).
_IER_RX, _IER_THRE, _IER_LINE, _IER_MODEM = 1, 2, 4, 8
_PEND_LINE, _PEND_RX, _PEND_CTI, _PEND_THRE, _PEND_MODEM = 1, 2, 4, 8, 16
# Priority order of the data sheet's table "Interrupt Control Functions".
_IIR_OF: Final = (
    (_PEND_LINE, 0x06),
    (_PEND_RX, 0x04),
    (_PEND_CTI, 0x0C),
    (_PEND_THRE, 0x02),
    (_PEND_MODEM, 0x00),
)
_IIR_NONE: Final = 0x01
_FCR_ENABLE, _FCR_CLEAR_RX, _FCR_TRIGGER = 0x01, 0x02, 0xC0
_LCR_DLAB: Final = 0x80
_MCR_OUT2, _MCR_LOOP = 0x08, 0x10
_LSR_DR, _LSR_OE, _LSR_BI, _LSR_ERRORS, _LSR_CHAR_ERRORS, _LSR_TX_EMPTY, _LSR_FIFO_ERROR = (
    1,
    2,
    0x10,
    0x1E,
    0x1C,
    0x60,
    0x80,
)
_MSR_PEER: Final = 0xB0  # carrier, data set ready, clear to send: a terminal is always there
_MSR_RI: Final = 0x40


class Serial16550(Transmitter):
    """A 16550A whose transmitter is never busy and whose receiver is fed by `enqueue`.

    Registers start as firmware leaves them: 8N1, 9600 baud, OUT2 set. The interrupt is gated by MCR.OUT2, in
    loopback too. On an edge line (`trigger=EDGE`, e.g. an irqfd) one edge is sent whenever a cause appears
    *and* whenever the guest acknowledges one while others remain, so that neither a driver that loops until
    IIR says "none" nor one that handles a single cause per interrupt can hang. On a level line the level
    follows the pending causes. Data below the trigger level raises the character timeout (IIR 0xC) at once:
    no time passes inside the model. Thread-safe. `out` is called under the device's lock; it may block the
    writing vCPU, but must not wait for another thread that calls into this device.

    Args:
        out: takes transmitted bytes: a callable, or an object with `write(bytes)`. An OSError loses those
            bytes (counted in `tx_lost`), the guest goes on.
        interrupt: the line.
        trigger: how the line signals.
        on_rx_space: called, without the lock, when the receiver has emptied after `enqueue` refused bytes.
        defer: given, output is collected up to a newline or 1024 bytes; called with a flush function when
            something waits, it must run that soon, e.g. `lambda flush: events.call_later(0.005, flush)`. It
            is not called again before that flush ran. None writes byte by byte.
    """

    def __init__(
        self,
        out: Callable[[bytes], object] | Writer,
        interrupt: Interrupt,
        *,
        trigger: Trigger = Trigger.EDGE,
        on_rx_space: Callable[[], object] | None = None,
        defer: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__(out, defer)
        self._interrupt = interrupt
        self._edge = trigger is Trigger.EDGE
        self.on_rx_space = on_rx_space
        self._refused = False
        self._last_pending = 0
        # As a reset leaves them, but for the divisor of 9600 baud and 8N1, which firmware would have set.
        self._divisor, self._ier, self._fcr, self._lcr = 12, 0, 0, 0x03
        self._mcr, self._scr = 0x08, 0
        self._errors = self._msr_delta = 0
        self._thre_pending = False
        self._rx: deque[int] = deque()

    def _load(self, state: "vm_device.SerialState") -> None:
        self._divisor, self._ier, self._fcr, self._lcr = state.divisor, state.ier, state.fcr, state.lcr
        self._mcr, self._scr = state.mcr, state.scr
        self._errors, self._msr_delta = state.lsr_errors, state.msr_delta
        self._thre_pending = state.thre_pending
        self._rx = deque(state.rx)

    # -- the bus side

    def read(self, offset: int, size: int) -> int:
        """Read registers; a wide access reads consecutive ones, as ISA splits it. Beyond offset 7: 0xFF."""
        with self._lock:
            if size == 1:
                value = self._read8(offset)
            else:
                value = sum(self._read8(offset + i) << 8 * i for i in range(size))
            wake = self._take_space() if self._refused else None
        if wake:
            wake()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write registers; a wide access writes consecutive ones. Beyond offset 7: ignored."""
        with self._lock:
            if size == 1:
                self._write8(offset, value)
            else:
                for i in range(size):
                    self._write8(offset + i, value >> 8 * i & 0xFF)
            wake = self._take_space() if self._refused else None
        if wake:
            wake()

    def _read8(self, offset: int) -> int:
        if self._lcr & _LCR_DLAB and offset < 2:
            return self._divisor >> 8 * offset & 0xFF
        if offset == 5:
            return self._read_lsr()
        if offset == 0:
            return self._read_rbr()
        if offset == 2:
            return self._read_iir()
        if offset == 6:
            return self._read_msr()
        simple = {1: self._ier, 3: self._lcr, 4: self._mcr, 7: self._scr}
        return simple.get(offset, 0xFF)

    def _write8(self, offset: int, value: int) -> None:
        if self._lcr & _LCR_DLAB and offset < 2:
            self._divisor = self._divisor & (0xFF00 >> 8 * offset) | value << 8 * offset
        elif offset == 0:
            self._write_thr(value)
        elif offset == 1:
            self._write_ier(value & 0x0F)
        elif offset == 2:
            self._write_fcr(value)
        elif offset == 3:
            self._lcr = value
        elif offset == 4:
            self._write_mcr(value & 0x1F)
        elif offset == 7:
            self._scr = value

    # -- interrupt causes

    def _pending(self) -> int:
        ier, mask = self._ier, 0
        if not ier:  # a console that prints by polling masks everything first
            return 0
        if ier & _IER_LINE and self._errors:
            mask |= _PEND_LINE
        if ier & _IER_RX and self._rx:
            mask |= _PEND_RX if len(self._rx) >= self._rx_level() else _PEND_CTI
        if ier & _IER_THRE and self._thre_pending:
            mask |= _PEND_THRE
        if ier & _IER_MODEM and self._msr_delta:
            mask |= _PEND_MODEM
        return mask

    def _rx_level(self) -> int:
        return _TRIGGER_LEVELS[self._fcr >> 6] if self._fcr & _FCR_ENABLE else 1

    def _update(self, *, again: bool = False) -> None:
        """Bring the line up to date; `again`: something was acknowledged, so old causes need a new edge."""
        pending = self._pending() if self._mcr & _MCR_OUT2 else 0
        before, self._last_pending = self._last_pending, pending
        if self._edge:
            if pending and (again or pending & ~before):
                self._interrupt.trigger()
        elif bool(pending) != bool(before):
            self._interrupt.set_level(bool(pending))

    def _read_iir(self) -> int:
        pending = self._pending()
        fifo = 0xC0 if self._fcr & _FCR_ENABLE else 0
        cause = next((iir for bit, iir in _IIR_OF if pending & bit), _IIR_NONE)
        if cause == 0x02:  # reading IIR acknowledges THRE only, and only when it is the reported cause
            self._thre_pending = False
            self._update(again=True)
        return cause | fifo

    def _write_ier(self, value: int) -> None:
        if value & ~self._ier & _IER_THRE:
            self._thre_pending = True  # enabling with an empty THR interrupts at once; Linux probes for it
        elif not value & _IER_THRE:
            self._thre_pending = False
        self._ier = value
        self._update(again=True)

    # -- receiver

    def enqueue(self, data: bytes | bytearray | memoryview) -> int:
        """Feed received bytes.

        Returns:
            How many were accepted (0 .. len(data)); up to 16 wait in the FIFO, 1 without it, none in
            loopback. Keep the rest and offer it again when `on_rx_space` is called.
        """
        with self._lock:
            room = 0 if self._mcr & _MCR_LOOP else self._capacity() - len(self._rx)
            taken = bytes(data[: max(room, 0)])
            self._refused = self._refused or len(taken) < len(data)
            self._rx.extend(taken)
            self._expose()
            if taken:
                self._update(again=True)
            return len(taken)

    def enqueue_break(self) -> bool:
        """Receive a break condition (a zero character with LSR.BI); False when there is no room for it."""
        with self._lock:
            if self._mcr & _MCR_LOOP or len(self._rx) >= self._capacity():
                return False
            self._rx.append(_LSR_BI << 8)
            self._expose()
            self._update(again=True)
            return True

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fcr & _FCR_ENABLE else 1

    def _expose(self) -> None:
        # Errors are revealed when their character reaches the head of the FIFO.
        if self._rx and self._rx[0] > 0xFF:
            self._errors |= self._rx[0] >> 8
            self._rx[0] &= 0xFF

    def _take_space(self) -> Callable[[], object] | None:
        if self._rx or self._mcr & _MCR_LOOP:
            return None
        self._refused = False
        return self.on_rx_space

    def _read_rbr(self) -> int:
        if not self._rx:
            return 0
        char = self._rx.popleft()
        self._expose()
        self._update(again=True)
        return char & 0xFF

    def _write_fcr(self, value: int) -> None:
        toggled = (value ^ self._fcr) & _FCR_ENABLE
        # Other bits are programmable only in a write that also sets the enable bit; turning the FIFO on or
        # off clears it.
        if toggled or (value & _FCR_ENABLE and value & _FCR_CLEAR_RX):
            self._rx.clear()
        self._fcr = value & (_FCR_ENABLE | _FCR_TRIGGER) if value & _FCR_ENABLE else 0
        self._update()

    def _read_lsr(self) -> int:
        value = self._errors | _LSR_TX_EMPTY
        if self._rx:
            value |= _LSR_DR
        if self._fcr & _FCR_ENABLE and (
            self._errors & _LSR_CHAR_ERRORS or (self._rx and max(self._rx) > 0xFF)
        ):
            value |= _LSR_FIFO_ERROR
        if self._errors:
            self._errors = 0
            self._update(again=True)
        return value

    # -- modem control

    def _msr_inputs(self) -> int:
        if not self._mcr & _MCR_LOOP:
            return _MSR_PEER
        mcr = self._mcr  # loopback wires RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD
        return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4

    def _write_mcr(self, value: int) -> None:
        before = self._msr_inputs()
        self._mcr = value
        after = self._msr_inputs()
        changed = before ^ after
        # RI counts on its trailing edge only (TERI).
        ring = changed & before & _MSR_RI
        self._msr_delta |= (changed & ~_MSR_RI | ring) >> 4
        self._update()

    def _read_msr(self) -> int:
        value = self._msr_inputs() | self._msr_delta
        if self._msr_delta:
            self._msr_delta = 0
            self._update(again=True)
        return value

    # -- transmitter

    def _write_thr(self, char: int) -> None:
        if self._mcr & _MCR_LOOP:
            self._loop_back(char)
        else:
            self._tx.put(char)
        self._thre_pending = bool(self._ier & _IER_THRE)
        self._update(again=True)

    def _loop_back(self, char: int) -> None:
        if len(self._rx) < self._capacity():
            self._rx.append(char)
            return
        self._errors |= _LSR_OE
        if not self._fcr & _FCR_ENABLE:
            self._rx[0] = char  # without a FIFO the new character replaces the unread one

    # -- state and description

    def state(self) -> "vm_device.SerialState":
        """Return the saved state; collected output is flushed first."""
        with self._lock:
            self.flush()
            return vm_device.SerialState(
                self._divisor,
                self._ier,
                self._fcr,
                self._lcr,
                self._mcr,
                self._scr,
                self._errors,
                self._msr_delta,
                self._thre_pending,
                tuple(self._rx),
            )

    @classmethod
    def from_state(
        cls,
        state: "vm_device.SerialState",
        out: Callable[[bytes], object] | Writer,
        interrupt: Interrupt,
        *,
        trigger: Trigger = Trigger.EDGE,
        on_rx_space: Callable[[], object] | None = None,
        defer: Callable[[Callable[[], None]], object] | None = None,
    ) -> "Serial16550":
        """Rebuild a UART; arguments as for the class. A pending cause signals again on the new line.

        Raises:
            SavedStateError: unknown version or impossible register values.
        """
        from vm_device._serial_state import check_state  # noqa: PLC0415 - few machines are saved

        check_state(state)
        serial = cls(out, interrupt, trigger=trigger, on_rx_space=on_rx_space, defer=defer)
        with serial._lock:
            serial._load(state)
            serial._update()
        return serial

    @staticmethod
    def describe(
        id: str = "com1",  # noqa: A002 - the node's field
        base: int = 0x3F8,
        gsi: int = 4,
        *,
        space: AddressSpace = AddressSpace.PIO,
        trigger: Trigger = Trigger.EDGE,
        uid: int = 0,
    ) -> DeviceNode:
        """Return the platform node of a UART at `base` (8 bytes) on `gsi`.

        Raises:
            PlatformError: base or gsi out of range.
        """
        ranges = (AddressRange(space, base, 8),)
        return DeviceNode(
            id,
            "serial",
            ranges,
            (InterruptSpec(gsi, trigger),),
            hid="PNP0501",
            compatible=("ns16550a",),
            uid=uid,
        )
