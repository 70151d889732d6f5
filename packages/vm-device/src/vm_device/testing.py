"""Test doubles and an independent UART driver, for this package and for those that build on it."""

from collections.abc import Callable
from typing import Final

__all__ = ("FakeInterrupt", "RamDevice", "UartDriver")


class FakeInterrupt:
    """A line that records what the device did; implements Interrupt.

    Attributes:
        edges: number of `trigger` calls.
        levels: every level set, in order.
        level: the last one.
    """

    def __init__(self, on_trigger: Callable[[], object] | None = None) -> None:
        """`on_trigger` is called on each edge and each rise."""
        self.edges = 0
        self.levels: list[bool] = []
        self.level = False
        self._on_trigger = on_trigger

    def trigger(self) -> None:
        """Count an edge."""
        self.edges += 1
        if self._on_trigger:
            self._on_trigger()

    def set_level(self, level: bool) -> None:
        """Record the level."""
        rose, self.level = level and not self.level, level
        self.levels.append(level)
        if rose and self._on_trigger:
            self._on_trigger()

    def take(self) -> int:
        """Return the number of edges since the last call."""
        edges, self.edges = self.edges, 0
        return edges

    @property
    def eventfd(self) -> int | None:
        """None: there is no descriptor behind it."""
        return None


class RamDevice:
    """A bus device that is `size` bytes of memory; implements BusDevice."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, offset: int, size: int) -> int:
        """Little-endian read."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Little-endian write."""
        self.data[offset : offset + size] = value.to_bytes(size, "little")


_RBR, _THR, _IER, _IIR, _FCR, _LCR, _MCR, _LSR, _MSR = 0, 0, 1, 2, 2, 3, 4, 5, 6
_PASS_LIMIT: Final = 256


class UartDriver:
    """A guest driver for a 16550A on an edge-triggered line, written from the data sheet alone.

    Wire `raise_irq` to the device's line, then call `run` whenever the guest may take interrupts.

    Args:
        read: register read, offset to byte.
        write: register write, offset and byte.
        looping: handle causes until IIR says none (as Linux does), or exactly one cause per interrupt.
        burst: bytes written per THRE interrupt, 1 .. 16.
    """

    def __init__(
        self,
        read: Callable[[int], int],
        write: Callable[[int, int], object],
        *,
        looping: bool = True,
        burst: int = 16,
    ) -> None:
        self._read = read
        self._write = write
        self._looping = looping
        self._burst = burst
        self.irr = False
        self.received = bytearray()
        self.breaks = 0
        self.overruns = 0
        self.spurious = 0
        self._to_send = bytearray()
        self._ier = 0

    def raise_irq(self) -> None:
        """The interrupt controller's edge input: latches, so that edges coalesce."""
        self.irr = True

    def open(self, trigger_level: int = 8) -> None:
        """Program 8N1, OUT2, receive interrupts and FIFOs of `trigger_level` (1, 4, 8, 14; 0: FIFO off)."""
        self._write(_IER, 0)
        fcr = {0: 0, 1: 0x07, 4: 0x47, 8: 0x87, 14: 0xC7}[trigger_level]
        self._write(_FCR, fcr)
        self._write(_LCR, 0x83)
        self._write(0, 1)
        self._write(1, 0)
        self._write(_LCR, 0x03)
        self._write(_MCR, 0x0B)
        self._set_ier(0x05)

    def send(self, data: bytes) -> None:
        """Queue bytes for transmission by interrupt."""
        self._to_send += data
        if data:
            self._set_ier(self._ier | 0x02)

    def polled_print(self, data: bytes) -> None:
        """Write as a kernel console does: interrupts masked, polling LSR, mask restored."""
        self._write(_IER, 0)
        for char in data:
            while not self._read(_LSR) & 0x20:
                pass
            self._write(_THR, char)
        self._write(_IER, self._ier)

    def run(self) -> int:
        """Take interrupts until no edge is latched; returns how many were handled."""
        handled = 0
        while self.irr:
            self.irr = False
            self._interrupt()
            handled += 1
            if handled > 100_000:
                raise AssertionError(f"interrupt storm: {handled} interrupts without progress")
        return handled

    @property
    def idle(self) -> bool:
        """Whether everything queued was sent."""
        return not self._to_send

    def _set_ier(self, value: int) -> None:
        self._ier = value
        self._write(_IER, value)

    def _interrupt(self) -> None:
        for number in range(_PASS_LIMIT if self._looping else 1):
            iir = self._read(_IIR)
            if iir & 1:
                self.spurious += number == 0
                return
            self._serve(iir & 0x0E)

    def _serve(self, cause: int) -> None:
        if cause == 0x06:
            self._line_status()
        elif cause in (0x04, 0x0C):
            self._receive()
        elif cause == 0x02:
            self._transmit()
        else:
            self._read(_MSR)

    def _line_status(self) -> int:
        status = self._read(_LSR)
        self.overruns += bool(status & 0x02)
        self.breaks += bool(status & 0x10)
        return status

    def _receive(self) -> None:
        if not self._looping:
            self.received.append(self._read(_RBR))
            return
        for _ in range(_PASS_LIMIT):
            if not self._line_status() & 1:
                return
            self.received.append(self._read(_RBR))

    def _transmit(self) -> None:
        chunk, self._to_send = self._to_send[: self._burst], self._to_send[self._burst :]
        for char in chunk:
            self._write(_THR, char)
        if not self._to_send:
            self._set_ier(self._ier & ~0x02)
