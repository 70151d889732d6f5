"""The SPCR: which serial port is the console (Microsoft's specification of it, revision 2)."""

import struct
from enum import IntEnum

import attrs

from acpi_tables._errors import EncodingError, TableError
from acpi_tables._header import HEADER, GenericAddress, packed, sdt

__all__ = ("SerialPort", "Spcr")

_REVISION = 2
_BODY = struct.Struct("<B3x12sBBIBBBBBBHHBBBIBI")
LENGTH = HEADER.size + _BODY.size
_IO_APIC, _GIC = 2, 8
_NO_PCI = 0xFFFF
_ONE_STOP_BIT = 1
_BAUD_CODES = {0: 0, 9600: 3, 19200: 4, 57600: 6, 115200: 7}
_BAUD_RATES = {code: rate for rate, code in _BAUD_CODES.items()}


class SerialPort(IntEnum):
    """The register interface of the port (DBG2's subtypes)."""

    UART_16550 = 0
    PL011 = 3
    SBSA = 0xE


@attrs.frozen
class Spcr:
    """What the SPCR says.

    Attributes:
        port: the register interface.
        address: its registers.
        gsi: its global system interrupt; 0 when it has none.
        baud: 9600, 19200, 57600 or 115200 bits per second; 0 leaves what firmware set.
        gic: the interrupt is one of a GIC, else of an I/O APIC.
    """

    port: SerialPort
    address: GenericAddress
    gsi: int = 0
    baud: int = 0
    gic: bool = False

    def encode(self) -> bytes:
        """Build the table, revision 2; EncodingError for another speed, or when a field does not fit."""
        if self.baud not in _BAUD_CODES:
            raise EncodingError("baud rate", self.baud, f"one of {sorted(_BAUD_CODES)}")
        kind = (_GIC if self.gic else _IO_APIC) if self.gsi else 0
        body = packed(
            "serial interrupt", self.gsi, _BODY, self.port, self.address.encode(), kind, 0, self.gsi,
            _BAUD_CODES[self.baud], 0, _ONE_STOP_BIT, 0, 0, 0, _NO_PCI, _NO_PCI, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        return sdt(b"SPCR", _REVISION, body)

    @classmethod
    def decode(cls, table: bytes, address: int = 0) -> "Spcr":
        """Read an SPCR of revision 2 or later.

        Args:
            table: the whole table.
            address: where it was found, for the error only.

        Returns:
            The fields this class knows; terminal type and PCI location are ignored.

        Raises:
            TableError: it is shorter than revision 2, or of a port or a speed that is not known here.
        """
        if len(table) < LENGTH:
            raise TableError("SPCR", address, f"{len(table):#x} bytes, less than {LENGTH:#x}")
        port, registers, kind, _, gsi, baud, *_ = _BODY.unpack_from(table, HEADER.size)
        known = {int(member) for member in SerialPort}
        if port not in known or baud not in _BAUD_RATES:
            raise TableError("SPCR", address, f"port type {port:#x} at speed code {baud}")
        gic = bool(kind & _GIC)
        return cls(SerialPort(port), GenericAddress.decode(registers), gsi, _BAUD_RATES[baud], gic)
