"""The GTDT: interrupts of Arm's generic timer (ACPI 6.3 §5.2.24)."""

import struct

import attrs

from acpi_tables._errors import TableError
from acpi_tables._header import HEADER, packed, sdt

__all__ = ("Gtdt", "TimerInterrupt")

_REVISION = 3
_BODY = struct.Struct("<QIIIIIIIIIQIIII")
LENGTH = HEADER.size + _BODY.size
_ABSENT = (1 << 64) - 1


@attrs.frozen
class TimerInterrupt:
    """An interrupt of the timer.

    Attributes:
        gsi: global system interrupt, 16 + the PPI's number; 0 when there is none.
        edge: edge triggered, else level.
        active_low: active low, else high.
        always_on: the timer does not stop when the processor sleeps.
    """

    gsi: int = 0
    edge: bool = False
    active_low: bool = False
    always_on: bool = False

    def fields(self) -> tuple[int, int]:
        """Return GSIV and flags (table 5-123)."""
        return self.gsi, self.edge | self.active_low << 1 | self.always_on << 2


@attrs.frozen(kw_only=True)
class Gtdt:
    """What the GTDT says; no memory-mapped timers or watchdogs.

    Attributes:
        secure_el1: secure EL1 timer.
        el1: non-secure EL1 timer.
        virtual: virtual EL1 timer, the one a guest of KVM uses.
        el2: EL2 timer.
        virtual_el2: virtual EL2 timer (Armv8.1).
    """

    secure_el1: TimerInterrupt = TimerInterrupt()
    el1: TimerInterrupt = TimerInterrupt()
    virtual: TimerInterrupt
    el2: TimerInterrupt = TimerInterrupt()
    virtual_el2: TimerInterrupt = TimerInterrupt()

    def encode(self) -> bytes:
        """Build the table, revision 3; EncodingError when an interrupt leaves 32 bits."""
        first = [self.secure_el1, self.el1, self.virtual, self.el2]
        fields = [value for timer in first for value in timer.fields()]
        last = self.virtual_el2.fields()
        body = packed("timer interrupt", self.virtual.gsi, _BODY, _ABSENT, 0, *fields, _ABSENT, 0, 0, *last)
        return sdt(b"GTDT", _REVISION, body)

    @classmethod
    def decode(cls, table: bytes, address: int = 0) -> "Gtdt":
        """Read a GTDT of revision 3.

        Args:
            table: the whole table.
            address: where it was found, for the error only.

        Returns:
            The timer interrupts.

        Raises:
            TableError: it is shorter than revision 3, has flags that are reserved, or lists
                memory-mapped timers.
        """
        if len(table) < LENGTH:
            raise TableError("GTDT", address, f"{len(table):#x} bytes, less than {LENGTH:#x}")
        fields = _BODY.unpack_from(table, HEADER.size)
        count = fields[11]
        if count or len(table) > LENGTH:
            raise TableError("GTDT", address, f"{count} memory-mapped timers in {len(table):#x} bytes")
        timers = [_timer(fields[at], fields[at + 1], address) for at in (2, 4, 6, 8, 13)]
        return cls(
            secure_el1=timers[0], el1=timers[1], virtual=timers[2], el2=timers[3], virtual_el2=timers[4]
        )


def _timer(gsi: int, flags: int, address: int) -> TimerInterrupt:
    if flags >> 3:
        raise TableError("GTDT", address, f"timer flags {flags:#x}, of which only 3 bits are defined")
    return TimerInterrupt(gsi, bool(flags & 1), bool(flags & 2), bool(flags & 4))
