"""Every exception of vmm_memory.

::

    GuestMemoryError
    ├── GuestAccessError                 an address or size that may well come from the guest
    │   ├── InvalidGuestAddressError         not mapped, or wraps around 2^64
    │   │   └── PartialBufferError           begins mapped, runs out of memory
    │   ├── ReadOnlyRegionError              a write to a read-only region
    │   ├── IommuFaultError                  no translation, or none with this permission
    │   └── MisalignedAccessError            a typed access off its natural alignment
    ├── InvalidRegionError (ValueError)  our caller asked for a region that cannot be
    │   ├── FileTooSmallError
    │   └── RegionOverlapError
    ├── NoSuchRegionError (LookupError)
    ├── RegionBusyError                  memory or a translation is to go while somebody uses it
    ├── ClosedError                      a closed region or slice was used
    ├── MappingError (OSError)           the kernel refused memfd, mmap or madvise
    │   └── HugepageError
    ├── TransferError (OSError)          read or write of a file descriptor failed
    │   └── UnexpectedEofError
    ├── ListenerError                    a listener changed memory from inside a notification
    └── ForkedError                      guest memory was used in a forked child

A device turns GuestAccessError into its own DriverError; the others are never the guest's fault.
"""

from __future__ import annotations

import errno as _errno

__all__ = (
    "ClosedError",
    "FileTooSmallError",
    "ForkedError",
    "GuestAccessError",
    "GuestMemoryError",
    "HugepageError",
    "InvalidGuestAddressError",
    "InvalidRegionError",
    "IommuFaultError",
    "ListenerError",
    "MappingError",
    "MisalignedAccessError",
    "NoSuchRegionError",
    "PartialBufferError",
    "ReadOnlyRegionError",
    "RegionBusyError",
    "RegionOverlapError",
    "TransferError",
    "UnexpectedEofError",
)


class GuestMemoryError(Exception):
    """Root of everything this package raises on its own account."""


class GuestAccessError(GuestMemoryError):
    """An access that guest memory cannot serve; it has read, written and marked nothing.

    Attributes:
        address: First guest address of the access.
        size: Its bytes.
        completed: Of a vectored access: how many entries before this one were accessed. Else 0.
    """

    def __init__(self, address: int, size: int, reason: str) -> None:
        super().__init__(f"guest range {address:#x} + {size:#x}: {reason}")
        self.address = address
        self.size = size
        self.completed = 0


class InvalidGuestAddressError(GuestAccessError):
    """Some byte of the range is not mapped, or the range wraps around 2^64."""


class PartialBufferError(InvalidGuestAddressError):
    """The range begins in mapped memory and runs out of it.

    Attributes:
        expected: Bytes asked for.
        available: Bytes mapped without a gap from `address` on.
    """

    def __init__(self, address: int, expected: int, available: int) -> None:
        super().__init__(address, expected, f"only the first {available:#x} bytes are mapped; none was moved")
        self.expected = expected
        self.available = available


class ReadOnlyRegionError(GuestAccessError):
    """The range touches a region that was made read-only."""


class IommuFaultError(GuestAccessError):
    """The IOMMU does not translate some byte of the range, or not for this kind of access.

    Attributes:
        iova: The first such byte, an I/O virtual address within the range.
        write: Was it to be written (else read)?
        mapped: Is it translated, but without the permission?
    """

    def __init__(
        self, address: int, size: int, *, iova: int, write: bool, mapped: bool, reason: str = ""
    ) -> None:
        way = "written" if write else "read"
        text = f"may not be {way}" if mapped else f"is not translated (to be {way})"
        super().__init__(address, size, f"IOVA {iova:#x} {text}" + (f": {reason}" if reason else ""))
        self.iova = iova
        self.write = write
        self.mapped = mapped


class MisalignedAccessError(GuestAccessError):
    """A typed access whose address is not a multiple of its size."""


class InvalidRegionError(GuestMemoryError, ValueError):
    """Base, size, slot or offset of a region are not possible."""


class FileTooSmallError(InvalidRegionError):
    """The file ends before the region would.

    Attributes:
        file_size: Bytes in the file when the region was to be made.
        needed: Bytes it must have: offset + size.
    """

    def __init__(self, file_size: int, needed: int) -> None:
        super().__init__(
            f"file has {file_size:#x} bytes, the region needs {needed:#x} (offset + size): "
            "enlarge the file (truncate -s) or map less; memory past its end would fault with SIGBUS"
        )
        self.file_size = file_size
        self.needed = needed


class RegionOverlapError(InvalidRegionError):
    """Two regions claim the same guest address.

    Attributes:
        first: (base, last) of the lower one, both inclusive.
        second: (base, last) of the other one.
    """

    def __init__(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        super().__init__(f"regions overlap: {first[0]:#x}-{first[1]:#x} and {second[0]:#x}-{second[1]:#x}")
        self.first = first
        self.second = second


class NoSuchRegionError(GuestMemoryError, LookupError):
    """No region with exactly this base and size.

    Attributes:
        base: Guest physical address asked for.
        size: Bytes asked for.
    """

    def __init__(self, base: int, size: int) -> None:
        super().__init__(f"no region at {base:#x} of exactly {size:#x} bytes")
        self.base = base
        self.size = size


class RegionBusyError(GuestMemoryError):
    """The memory cannot go away yet.

    Attributes:
        users: What still uses it, one line each.
    """

    def __init__(self, what: str, users: tuple[str, ...]) -> None:
        super().__init__(f"{what} is still used by {', '.join(users)}; close or drop these first")
        self.users = users


class ClosedError(GuestMemoryError):
    """The object was closed; whoever closed it meant it."""


class MappingError(GuestMemoryError, OSError):
    """The kernel refused a mapping; errno and strerror as in OSError."""


class HugepageError(MappingError):
    """Huge pages are not available; the message says how to get them.

    Attributes:
        page_size: Bytes per huge page.
        needed: How many the region takes.
        free: How many the host has free, None when it has no pool of that size.
    """

    def __init__(self, code: int, message: str, *, page_size: int, needed: int, free: int | None) -> None:
        super().__init__(code, message)
        self.page_size = page_size
        self.needed = needed
        self.free = free


class TransferError(GuestMemoryError, OSError):
    """A read from or write to a file descriptor failed part-way.

    Attributes:
        expected: Bytes asked for.
        completed: Bytes that did move before.
    """

    def __init__(self, code: int, message: str, *, expected: int, completed: int) -> None:
        super().__init__(code, f"{message} after {completed:#x} of {expected:#x} bytes")
        self.expected = expected
        self.completed = completed


class UnexpectedEofError(TransferError):
    """The file ended before all bytes had moved."""

    def __init__(self, *, expected: int, completed: int) -> None:
        super().__init__(_errno.ENODATA, "end of file", expected=expected, completed=completed)


class ListenerError(GuestMemoryError):
    """A region listener called insert, remove or replace while being notified."""


class ForkedError(GuestMemoryError):
    """Guest memory belongs to the process that mapped it; a forked child does not have it.

    Attributes:
        owner: Process id that made the map.
    """

    def __init__(self, owner: int) -> None:
        super().__init__(
            f"guest memory of process {owner} is not mapped in a forked child (MADV_DONTFORK); "
            "use it in the parent, or start children with subprocess"
        )
        self.owner = owner
