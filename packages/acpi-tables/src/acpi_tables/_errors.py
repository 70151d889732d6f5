"""Every error of this package.

    AcpiError
    ├── EncodingError (ValueError)              our caller: a value that no AML or table field can hold
    ├── UnsupportedPlatformError (ValueError)   our caller: a platform that ACPI cannot express
    ├── TableError                              the bytes read: a table that breaks the specification
    └── AmlParseError                           the bytes read: AML that breaks it, or this reader's limits

The last two blame whoever wrote the memory (firmware, a guest); the first two blame the program.
"""

__all__ = ("AcpiError", "AmlParseError", "EncodingError", "TableError", "UnsupportedPlatformError")


class AcpiError(Exception):
    """Root of every error raised by acpi_tables."""


class EncodingError(AcpiError, ValueError):
    """A value does not fit the AML or table field it was meant for; nothing was encoded.

    Attributes:
        field: what was being encoded.
        value: the value that was refused.
        limit: what the field accepts, in words.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        shown = f"{value:#x}" if isinstance(value, int) else repr(value)
        super().__init__(f"{field} cannot be {shown}: {limit}")
        self.field = field
        self.value = value
        self.limit = limit


class UnsupportedPlatformError(AcpiError, ValueError):
    """The platform description cannot be expressed in ACPI; no table was built.

    Attributes:
        node: the device id, or the field of the platform, that is to blame.
        reason: what is wrong with it.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"platform node {node!r}: {reason}")
        self.node = node
        self.reason = reason


class TableError(AcpiError):
    """Memory does not hold the ACPI table it should hold.

    Attributes:
        table: signature of the table, as far as it is known.
        address: guest-physical address of the table.
        reason: what is wrong with it.
    """

    def __init__(self, table: str, address: int, reason: str) -> None:
        super().__init__(f"{table} at {address:#x}: {reason}")
        self.table = table
        self.address = address
        self.reason = reason


class AmlParseError(AcpiError):
    """AML bytes cannot be decoded.

    Attributes:
        offset: byte offset into the AML that was given.
        reason: what was found there.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"AML byte {offset:#x}: {reason}")
        self.offset = offset
        self.reason = reason
