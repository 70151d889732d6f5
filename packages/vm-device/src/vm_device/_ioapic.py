"""An I/O APIC in user space: 24 pins in, message-signalled interrupts out (82093AA; ICH for EOI).

For hypervisors that have the local APICs but no I/O APIC, such as KVM with a split irqchip. Nothing here
knows of one: an `IoApicOutput` carries the messages away, and whoever learns that a local APIC was
acknowledged calls `end_of_interrupt`.

The version is 0x20, that of the chips with an EOI register (offset 0x40): KVM with a split irqchip offers
"suppress EOI broadcast" to guests that have an x2APIC, and a guest that takes it tells the I/O APIC itself.
The 82093AA's 0x11 has no such register, so its level interrupts would come once.
"""

import threading
from typing import Final, Protocol

import attrs

from vm_device._errors import PlatformError, SavedStateError
from vm_device._saved_state import check_saved
from vm_device.platform import AddressRange, AddressSpace, DeviceNode

PINS: Final = 24
_VERSION: Final = 0x20
_SELECT, _WINDOW, _EOI = 0x00, 0x10, 0x40  # offsets
_ID, _VERSION_INDEX, _ARBITRATION, _FIRST_ENTRY = 0, 1, 2, 0x10  # values of the select register

_VECTOR: Final = 0xFF
_DELIVERY_MODE: Final = 7 << 8
_LOGICAL: Final = 1 << 11
_ACTIVE_LOW: Final = 1 << 13
_REMOTE_IRR: Final = 1 << 14
_LEVEL: Final = 1 << 15
_MASKED: Final = 1 << 16
_DESTINATION_SHIFT: Final = 56
_WRITABLE_LOW: Final = _VECTOR | _DELIVERY_MODE | _LOGICAL | _ACTIVE_LOW | _LEVEL | _MASKED
_WRITABLE_HIGH: Final = 0xFF00_0000

_MSI_ADDRESS: Final = 0xFEE0_0000
_MSI_ASSERT: Final = 1 << 14
_MSI_LEVEL: Final = 1 << 15


@attrs.frozen
class PinMessage:
    """What a pin sends, as an MSI (SDM 3A, 11.11): 32-bit `address` and `data`."""

    address: int
    data: int

    @property
    def vector(self) -> int:
        """Interrupt vector, 0 .. 255."""
        return self.data & _VECTOR

    @property
    def level(self) -> bool:
        """Whether the local APIC has to tell when it is acknowledged."""
        return bool(self.data & _MSI_LEVEL)


class IoApicOutput(Protocol):
    """Where an I/O APIC's interrupts go. Called with the I/O APIC locked: must not call into it."""

    def set_pin(self, pin: int, message: PinMessage, masked: bool, /) -> None:
        """Take notice of what a pin sends from now on.

        While `masked`, edges that bypass the I/O APIC (an eventfd of the pin) must be dropped. While
        `message.level`, masked or not, the acknowledgement of `message.vector` must be reported: a driver
        may mask a pin whose interrupt it is still handling.
        """
        ...

    def send(self, message: PinMessage, /) -> bool:
        """Send a message now; False when no local APIC took it."""
        ...

    def resample(self, pin: int, /) -> None:
        """Ask what raised a level pin behind the I/O APIC's back to look at its cause: an interrupt ended."""
        ...


@attrs.frozen
class IoApicState:
    """Saved state of an IoApic, version 1.

    Args:
        id: 0 .. 15.
        select: index of the register behind the window, 0 .. 255.
        entries: 24 redirection entries of 64 bits.
        asserted: bit n is the level of pin n.
    """

    id: int
    select: int
    entries: tuple[int, ...]
    asserted: int
    version: int = 1


class IoApic:
    """24 redirection entries behind an index and a data register.

    Any thread may call anything: vCPUs write registers while devices drive lines. A line is asserted or
    not; the polarity bit is kept for the guest and changes nothing, as lines here have no voltage.

    Args:
        output: where messages go. Every pin is masked at first, and not reported to it.
        id: I/O APIC id, 0 .. 15.

    Raises:
        PlatformError: id is out of range.
    """

    SIZE = 0x1000
    """Bytes of MMIO."""

    def __init__(self, output: IoApicOutput, *, id: int = 0) -> None:  # noqa: A002 - the register's name
        if not 0 <= id <= 15:
            raise PlatformError("id", id, "must be 0..15")
        self._output = output
        self._lock = threading.Lock()
        self._id = id
        self._select = 0
        self._entries = [_MASKED] * PINS
        self._asserted = 0

    def read(self, offset: int, size: int) -> int:
        """Read a register; the window answers 4-byte reads only, what is no register reads 0."""
        with self._lock:
            if offset == _SELECT:
                return self._select
            return self._read_window() if (offset, size) == (_WINDOW, 4) else 0

    def _read_window(self) -> int:
        match self._select:
            case 0 | 2:  # the arbitration id is loaded from the id
                return self._id << 24
            case 1:
                return PINS - 1 << 16 | _VERSION
        pin, high = divmod(self._select - _FIRST_ENTRY, 2)
        if not 0 <= pin < PINS:
            return 0
        return self._entries[pin] >> 32 if high else self._entries[pin] & 0xFFFF_FFFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register; narrower or wider writes than 4 bytes change only the select register."""
        with self._lock:
            if offset == _SELECT:
                self._select = value & 0xFF
            elif (offset, size) == (_WINDOW, 4):
                self._write_window(value)
            elif (offset, size) == (_EOI, 4):
                self._end_of_interrupt(value & _VECTOR)

    def _write_window(self, value: int) -> None:
        if self._select == _ID:
            self._id = value >> 24 & 0xF
        pin, high = divmod(self._select - _FIRST_ENTRY, 2)
        if 0 <= pin < PINS:
            self._write_entry(pin, value, high=bool(high))

    def _write_entry(self, pin: int, value: int, *, high: bool) -> None:
        before = self._entries[pin]
        if high:
            entry = before & 0xFFFF_FFFF | (value & _WRITABLE_HIGH) << 32
        else:
            entry = before & ~0xFFFF_FFFF | value & _WRITABLE_LOW | before & _REMOTE_IRR
        if not entry & _LEVEL:
            # What kernels do to chips without an EOI register: edge and back to level ends an interrupt.
            entry &= ~_REMOTE_IRR
        self._entries[pin] = entry
        if _sent(entry) != _sent(before):
            self._output.set_pin(pin, _message(entry), bool(entry & _MASKED))
        self._serve_level(pin)

    def _serve_level(self, pin: int) -> None:
        """Send for a pin that is held asserted, unless its last interrupt is still being handled."""
        entry = self._entries[pin]
        waiting = self._asserted >> pin & 1 and entry & _LEVEL and not entry & (_MASKED | _REMOTE_IRR)
        if waiting and self._output.send(_message(entry)):
            self._entries[pin] |= _REMOTE_IRR

    def set_level(self, pin: int, level: bool) -> None:
        """Assert or release a line; a rise on an edge pin sends once, unless it is masked.

        Args:
            pin: 0 .. 23.
            level: True asserts.

        Raises:
            PlatformError: there is no such pin.
        """
        self._check(pin)
        with self._lock:
            rises = level and not self._asserted >> pin & 1
            self._asserted = self._asserted & ~(1 << pin) | level << pin
            if rises and not self._entries[pin] & _LEVEL:
                self._send_edge(pin)
            else:
                self._serve_level(pin)

    def pulse(self, pin: int) -> None:
        """Send one edge, whatever the trigger mode; it is lost while the pin is masked.

        Args:
            pin: 0 .. 23.

        Raises:
            PlatformError: there is no such pin.
        """
        self._check(pin)
        with self._lock:
            self._send_edge(pin)

    def _send_edge(self, pin: int) -> None:
        entry = self._entries[pin]
        if not entry & _MASKED:
            self._output.send(_message(entry))

    @staticmethod
    def _check(pin: int) -> None:
        if not 0 <= pin < PINS:
            raise PlatformError("pin", pin, f"must be 0..{PINS - 1}")

    def end_of_interrupt(self, vector: int) -> None:
        """Take a local APIC's acknowledgement; level pins of that vector still asserted send again.

        Args:
            vector: 0 .. 255; one that no level pin has is ignored.
        """
        with self._lock:
            self._end_of_interrupt(vector)

    def _end_of_interrupt(self, vector: int) -> None:
        for pin, entry in enumerate(self._entries):
            if not entry & _LEVEL or entry & _VECTOR != vector:
                continue
            self._output.resample(pin)  # whose messages have left remote IRR alone
            if entry & _REMOTE_IRR:
                self._entries[pin] = entry & ~_REMOTE_IRR
                self._serve_level(pin)

    def state(self) -> IoApicState:
        """Return the saved state."""
        with self._lock:
            return IoApicState(self._id, self._select, tuple(self._entries), self._asserted)

    @classmethod
    def from_state(cls, state: IoApicState, output: IoApicOutput) -> "IoApic":
        """Rebuild an I/O APIC and tell `output` what its pins send; no message is sent.

        Raises:
            SavedStateError: unknown version, or a field that no guest could have made.
        """
        _check_state(state)
        chip = cls(output, id=state.id)
        chip._select, chip._asserted = state.select, state.asserted
        chip._entries = list(state.entries)
        for pin, entry in enumerate(state.entries):
            if _sent(entry) != _sent(_MASKED):
                output.set_pin(pin, _message(entry), bool(entry & _MASKED))
        return chip

    @staticmethod
    def describe(id: str = "ioapic", base: int = 0xFEC0_0000) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: one page at `base`; ACPI names it in the MADT, not in the DSDT."""
        return DeviceNode(id, "ioapic", (AddressRange(AddressSpace.MMIO, base, IoApic.SIZE),))


def _message(entry: int) -> PinMessage:
    address = _MSI_ADDRESS | entry >> _DESTINATION_SHIFT << 12 | bool(entry & _LOGICAL) << 2
    data = entry & (_VECTOR | _DELIVERY_MODE)
    return PinMessage(address, data | _MSI_LEVEL | _MSI_ASSERT if entry & _LEVEL else data)


def _sent(entry: int) -> int:
    """The part of an entry that decides what is sent, and whether."""
    return entry & ~(_ACTIVE_LOW | _REMOTE_IRR)


def _check_state(state: IoApicState) -> None:
    check_saved(state, id=0xF, select=0xFF, asserted=(1 << PINS) - 1)
    if len(state.entries) != PINS:
        raise SavedStateError("entries", len(state.entries), f"{PINS} entries")
    for entry in state.entries:
        possible = _WRITABLE_HIGH << 32 | _WRITABLE_LOW | (_REMOTE_IRR if entry & _LEVEL else 0)
        if entry & ~possible:  # a negative number has every high bit
            raise SavedStateError("entry", entry, f"only bits of {possible:#x}")
