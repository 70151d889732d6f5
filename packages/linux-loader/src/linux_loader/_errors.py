"""What can go wrong while a kernel is loaded.

    LoaderError
    ├── ImageError                   the kernel or initrd file is to blame
    │   ├── TruncatedImageError      a structure reaches past the end of the file
    │   ├── MalformedImageError      a field holds a value the format forbids
    │   ├── UnknownFormatError       neither ELF nor bzImage
    │   ├── ForeignArchitectureError a kernel, but of another processor
    │   ├── UnsupportedProtocolError the kernel has no such entry point
    │   └── DecompressionError       the compressed payload is broken or too large
    ├── PlacementError               it does not fit into guest RAM
    ├── CmdlineError                 (also ValueError) an illegal command line
    │   └── CmdlineTooLongError      longer than the buffer or the kernel allows
    ├── ConfigurationError           (also ValueError) the caller's arguments contradict each other
    ├── FdtBuildError                (also ValueError) a tree that the device tree format forbids
    └── FdtParseError                a device tree blob that breaks the format

A file the host cannot open or read stays an ``OSError``; guest memory that refuses a write raises its own
``vmm_memory.GuestMemoryError``.
"""

from __future__ import annotations


class LoaderError(Exception):
    """Root of everything this package raises on purpose."""


class ImageError(LoaderError):
    """The file cannot be loaded as it is.

    Args:
        message: The whole sentence.
        what: The format or structure that was being read, such as ``"ELF header"``.
    """

    def __init__(self, message: str, *, what: str) -> None:
        super().__init__(message)
        self.what = what


class TruncatedImageError(ImageError):
    """A structure reaches past the end of the file.

    Args:
        what: The structure.
        offset: Its first byte in the file.
        needed: Its length in bytes.
        available: The length of the file in bytes.
    """

    def __init__(self, what: str, *, offset: int, needed: int, available: int) -> None:
        super().__init__(
            f"{what} needs {needed} bytes at file offset {offset:#x}, but the file has {available} bytes: "
            "it is truncated or damaged",
            what=what,
        )
        self.offset = offset
        self.needed = needed
        self.available = available


class MalformedImageError(ImageError):
    """A field holds a value the format forbids.

    Args:
        what: The structure.
        field: The field's name in the specification.
        value: What the file says.
        rule: What would have been right.
    """

    def __init__(self, what: str, *, field: str, value: int | str, rule: str) -> None:
        shown = f"{value:#x}" if isinstance(value, int) else value
        super().__init__(f"{what}: {field} is {shown}, {rule}", what=what)
        self.field = field
        self.value = value
        self.rule = rule


class UnknownFormatError(ImageError):
    """The file is neither an ELF file nor a bzImage.

    Args:
        found: What the first bytes look like.
        cure: What to do about it.
    """

    def __init__(self, found: str, *, cure: str) -> None:
        super().__init__(f"not a kernel this loader knows: found {found}; {cure}", what="kernel image")
        self.found = found
        self.cure = cure


class ForeignArchitectureError(ImageError):
    """The file is a kernel or program of another processor.

    Args:
        found: The architecture in the file.
        wanted: The architectures that can be loaded.
    """

    def __init__(self, found: str, *, wanted: str = "x86-64") -> None:
        super().__init__(f"the kernel is built for {found}; give one built for {wanted}", what="kernel image")
        self.found = found
        self.wanted = wanted


class UnsupportedProtocolError(ImageError):
    """The kernel cannot be entered by the boot protocol that was asked for.

    Args:
        protocol: The boot protocol.
        reason: Why not, with the field that says so.
        cure: What to do about it.
    """

    def __init__(self, protocol: str, *, reason: str, cure: str) -> None:
        super().__init__(f"the kernel cannot be entered by {protocol}: {reason}; {cure}", what="kernel image")
        self.protocol = protocol
        self.reason = reason
        self.cure = cure


class DecompressionError(ImageError):
    """The compressed payload is broken, of an unsupported kind, or larger than the limit.

    Args:
        kind: The compression, such as ``"zstd"``.
        reason: What went wrong.
    """

    def __init__(self, kind: str, *, reason: str) -> None:
        super().__init__(f"{kind} payload cannot be decompressed: {reason}", what=f"{kind} payload")
        self.kind = kind
        self.reason = reason


class PlacementError(LoaderError):
    """Something does not fit into guest RAM.

    Args:
        what: The thing to place, such as ``"initrd"``.
        size: Its size in bytes.
        reason: Where it was tried and why that failed.
    """

    def __init__(self, what: str, *, size: int, reason: str) -> None:
        super().__init__(f"{what} of {size:#x} bytes cannot be placed: {reason}")
        self.what = what
        self.size = size
        self.reason = reason


class CmdlineError(LoaderError, ValueError):
    """A command line, or a part of one, that the kernel would misread.

    Args:
        reason: What is wrong.
        text: The offending text.
    """

    def __init__(self, reason: str, *, text: str) -> None:
        super().__init__(f"kernel command line: {reason}: {text!r}")
        self.reason = reason
        self.text = text


class CmdlineTooLongError(CmdlineError):
    """A command line longer than its buffer or than the kernel reads.

    Args:
        length: Bytes needed, the terminating NUL included.
        capacity: Bytes allowed, the terminating NUL included.
        text: The whole command line that was too long.
    """

    def __init__(self, *, length: int, capacity: int, text: str) -> None:
        super().__init__(f"{length} bytes with the final NUL, but at most {capacity} are allowed", text=text)
        self.length = length
        self.capacity = capacity


class ConfigurationError(LoaderError, ValueError):
    """The caller's arguments contradict each other or the machine.

    Args:
        field: The argument.
        reason: What is wrong with it, with value and limit.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class FdtBuildError(LoaderError, ValueError):
    """A device tree that the flattened format cannot hold; nothing was made.

    Args:
        what: The part of the tree.
        value: What the caller gave.
        rule: What would have been right.
    """

    def __init__(self, what: str, value: str, rule: str) -> None:
        super().__init__(f"device tree: {what} cannot be {value}: {rule}")
        self.what = what
        self.value = value
        self.rule = rule


class FdtParseError(LoaderError):
    """Bytes that are no sound device tree blob.

    Args:
        offset: Where in the blob reading stopped.
        reason: What was found there.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"device tree blob, byte {offset:#x}: {reason}")
        self.offset = offset
        self.reason = reason
