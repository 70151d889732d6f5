"""One contiguous range of guest memory and what backs it."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from typing import Final

from ._bitmap import AtomicBitmap
from ._errors import (
    ClosedError,
    InvalidGuestAddressError,
    InvalidRegionError,
    ReadOnlyRegionError,
    RegionBusyError,
)
from ._holders import Holders, caller
from ._mapping import HOST_PAGE, Mapping, make_memfd, reopen_file
from ._slice import GuestSlice
from ._types import FileOffset, GuestAddress

__all__ = ("GuestRegionMmap",)

_slots: Final = itertools.count()


class GuestRegionMmap:
    """Guest physical [base, base + size), mapped into this process between two inaccessible pages.

    Made by `memfd` (the default for RAM: other processes can share it), `anonymous` or `from_file`. The
    mapping ends when the region and everything that was made from it are gone; `close` ends it earlier and
    checks that nothing uses it. A region can be in several maps at once: snapshots of one machine share their
    regions.

    Attributes:
        base: First guest physical address, a multiple of `page_size`.
        size: Bytes, a multiple of `page_size`; base + size may be exactly 2^64.
        slot: Stable number, unique in this process unless the caller chose it; never reused.
        bitmap: Dirty pages written from this process, or None when not tracked.
        read_only: Writes raise ReadOnlyRegionError; the host mapping itself is PROT_READ.
        file_offset: What backs it, for vhost-user, VFIO and KVM; None for anonymous memory. The region owns
            this fd.
        page_size: Bytes per page of the backing: 4096, or the huge page size.
    """

    __slots__ = (
        "__weakref__", "_fd_closer", "_mapping", "_users", "base", "bitmap", "file_offset", "page_size",
        "read_only", "size", "slot",
    )  # fmt: skip

    def __init__(
        self,
        base: int,
        mapping: Mapping,
        *,
        backing: FileOffset | None = None,
        read_only: bool = False,
        dirty: bool = False,
        dirty_page_size: int = HOST_PAGE,
        slot: int | None = None,
    ) -> None:
        self.base: Final = GuestAddress(base)
        self.size: Final = mapping.size
        self.slot: Final = next(_slots) if slot is None else slot
        self.bitmap: Final = AtomicBitmap(mapping.size, dirty_page_size) if dirty else None
        self.read_only: Final = read_only
        self.file_offset: Final = backing
        self.page_size: Final = mapping.page_size
        self._mapping: Mapping | None = mapping
        self._users: Final = Holders()
        self._fd_closer: Final = None if backing is None else weakref.finalize(self, os.close, backing.fd)

    @classmethod
    def memfd(
        cls,
        base: int,
        size: int,
        *,
        name: str = "guest-ram",
        hugepages: bool = False,
        hugepage_size: int = 2 << 20,
        dirty: bool = False,
        dirty_page_size: int = HOST_PAGE,
        prefault: bool = False,
        slot: int | None = None,
    ) -> GuestRegionMmap:
        """RAM in a memfd of its own, sealed against resizing; shared by passing on (fd, offset).

        Args:
            base: First guest physical address, a multiple of the page size.
            size: Bytes, a multiple of the page size.
            name: What /proc/PID/maps shows.
            hugepages: Back it by huge pages of the host's pool; all of them are reserved here.
            hugepage_size: Bytes per huge page: 2 MiB or 1 GiB on x86_64.
            dirty: Track which pages this process writes.
            dirty_page_size: Bytes per bit of `bitmap`, a power of two.
            prefault: Have every page backed now; slower to start, no faults later, and a clear error when
                there is too little memory.
            slot: A number of the caller's choice instead of the next free one.

        Raises:
            InvalidRegionError: base, size or slot are impossible.
            HugepageError: Not enough huge pages; the message says how to get them.
            MappingError: memfd_create(2), ftruncate(2), mmap(2) or madvise(2) failed. Nothing is left behind.
        """
        page = hugepage_size if hugepages else HOST_PAGE
        if page < HOST_PAGE or page & (page - 1):
            raise InvalidRegionError(
                f"hugepage_size is {page:#x}, must be a power of two of at least {HOST_PAGE:#x}"
            )
        _check_range(base, size, page, slot)
        fd = make_memfd(name, size, page if hugepages else None)
        try:
            mapping = _make_mapping(base, size, prefault, fd=fd, shared=True)
        except BaseException:
            os.close(fd)
            raise
        return cls(
            base, mapping, backing=FileOffset(fd), dirty=dirty, dirty_page_size=dirty_page_size, slot=slot
        )

    @classmethod
    def anonymous(
        cls,
        base: int,
        size: int,
        shared: bool = False,
        *,
        dirty: bool = False,
        dirty_page_size: int = HOST_PAGE,
        prefault: bool = False,
        slot: int | None = None,
    ) -> GuestRegionMmap:
        """RAM that no other process can be given (no file descriptor).

        Args:
            base: First guest physical address, a multiple of the page size.
            size: Bytes, a multiple of the page size.
            shared: MAP_SHARED instead of MAP_PRIVATE.
            dirty: As in `memfd`.
            dirty_page_size: As in `memfd`.
            prefault: As in `memfd`.
            slot: As in `memfd`.

        Raises:
            InvalidRegionError: base, size or slot are impossible.
            MappingError: mmap(2) or madvise(2) failed.
        """
        _check_range(base, size, HOST_PAGE, slot)
        return cls(
            base,
            _make_mapping(base, size, prefault, shared=shared),
            dirty=dirty,
            dirty_page_size=dirty_page_size,
            slot=slot,
        )

    @classmethod
    def from_file(
        cls,
        base: int,
        size: int,
        file: FileOffset,
        *,
        shared: bool = True,
        read_only: bool = False,
        dirty: bool = False,
        dirty_page_size: int = HOST_PAGE,
        prefault: bool = False,
        slot: int | None = None,
    ) -> GuestRegionMmap:
        """A piece of a regular file (also on hugetlbfs, also a memfd received from elsewhere).

        If somebody truncates the file later, touching the lost pages kills this process with SIGBUS: hand in
        files that only you may resize, or memfds sealed with F_SEAL_SHRINK. `read_from_fd` and `write_to_fd`
        report such pages as an error (EFAULT) instead.

        Args:
            base: First guest physical address, a multiple of the page size.
            size: Bytes, a multiple of the page size.
            file: Descriptor and byte offset, a multiple of the page size. The descriptor is duplicated.
            shared: Writes reach the file; otherwise they stay in this process (copy on write).
            read_only: Map it without write permission, refuse writes.
            dirty: As in `memfd`.
            dirty_page_size: As in `memfd`.
            prefault: As in `memfd`.
            slot: As in `memfd`.

        Raises:
            FileTooSmallError: offset + size lies past the end of the file.
            InvalidRegionError: base, size, offset or slot are impossible, or it is no regular file.
            MappingError: fstat(2) or mmap(2) failed; EACCES names the cure.
        """
        _check_range(base, size, HOST_PAGE, slot)
        if file.offset % HOST_PAGE:
            raise InvalidRegionError(f"file offset is {file.offset:#x}, must be a multiple of {HOST_PAGE:#x}")
        fd = reopen_file(file.fd, file.offset, size)
        try:
            mapping = _make_mapping(
                base, size, prefault, fd=fd, offset=file.offset, shared=shared, read_only=read_only
            )
        except BaseException:
            os.close(fd)
            raise
        backing = FileOffset(fd, file.offset)
        return cls(
            base,
            mapping,
            backing=backing,
            read_only=read_only,
            dirty=dirty,
            dirty_page_size=dirty_page_size,
            slot=slot,
        )

    def __repr__(self) -> str:
        kind = "closed" if self._mapping is None else "file" if self.file_offset else "anonymous"
        return f"<GuestRegionMmap slot {self.slot} {self.base:#x}-{self.last_addr:#x} {kind}>"

    @property
    def last_addr(self) -> GuestAddress:
        """The last guest physical address that belongs to the region."""
        return GuestAddress(self.base + self.size - 1)

    @property
    def host_address(self) -> int:
        """Where base is mapped in this process; keep the region while you use it.

        Raises:
            ClosedError: The region was closed.
        """
        return self.mapping.host

    @property
    def mapping(self) -> Mapping:
        """The pages themselves, for the map that is built on the region.

        Raises:
            ClosedError: The region was closed.
        """
        if self._mapping is None:
            raise ClosedError(f"region {self.base:#x} + {self.size:#x} (slot {self.slot}) is closed")
        return self._mapping

    @property
    def closed(self) -> bool:
        """Was `close` called?"""
        return self._mapping is None

    def contains(self, address: int) -> bool:
        """Does this guest physical address lie in the region?"""
        return self.base <= address <= self.last_addr

    def get_slice(self, offset: int, size: int, *, write: bool = False) -> GuestSlice:
        """A zero-copy window; see GuestSlice for the dirty rule.

        Args:
            offset: First byte from base, 0 .. size.
            size: Bytes, 0 .. size - offset.
            write: Allow writes; the pages are marked dirty when the slice is closed.

        Raises:
            InvalidGuestAddressError: The window leaves the region.
            ReadOnlyRegionError: write, and the region is read-only.
            ClosedError: The region was closed.
        """
        if write and self.read_only:
            raise ReadOnlyRegionError(self.base + offset, size, "the region is read-only")

        def mark(start: int, count: int) -> None:
            if self.bitmap is not None:
                self.bitmap.set_addr_range(offset + start, count)

        return self.window(offset, size, self.base + offset, mark if write else None)

    def window(
        self,
        offset: int,
        size: int,
        address: int,
        mark: Callable[[int, int], None] | None,
        lenders: tuple[Holders, ...] = (),
    ) -> GuestSlice:
        """As `get_slice`, seen at another address and marked elsewhere; for memory that translates.

        Args:
            offset: First byte from base, 0 .. size.
            size: Bytes, 0 .. size - offset.
            address: What the slice says of itself.
            mark: Marks (offset, bytes) of the slice dirty; None for a slice that cannot be written.
            lenders: Others who have to know how long it and its views are used.

        Raises:
            InvalidGuestAddressError: The window leaves the region.
            ClosedError: The region was closed.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            reason = f"leaves the region {self.base:#x}-{self.last_addr:#x}; a slice lies in one region"
            raise InvalidGuestAddressError(address, size, reason)
        # A buffer of its own: it lives as long as any view that is cut from this slice.
        exporter = self.mapping.export()
        window = GuestSlice(self, memoryview(exporter)[offset : offset + size], address, mark)
        alive, text, place = weakref.ref(window), repr(window), caller()

        def name() -> str:
            opened = (window := alive()) is not None and not window.closed
            return f"{text} taken at {place}" if opened else f"a view cut from {text} taken at {place}"

        for holders in (self._users, *lenders):
            holders.add(exporter, name, (address, address + max(size, 1)))
        return window

    def discard(self, offset: int, size: int) -> None:
        """Give pages back to the host; afterwards the guest reads zeroes there (private file: the file).

        Args:
            offset: First byte from base, a multiple of `page_size`.
            size: Bytes, a multiple of `page_size`, at least one page.

        Raises:
            InvalidRegionError: The range is empty, not whole pages, or leaves the region.
            ReadOnlyRegionError: The region is read-only.
            MappingError: fallocate(2) or madvise(2) failed, e.g. a file system without hole punching.
            ClosedError: The region was closed.
        """
        self.check_discard(offset, size)
        backing = self.file_offset or FileOffset(0)
        fd = -1 if self.file_offset is None else backing.fd
        self.mapping.discard(offset, size, fd, backing.offset)
        if self.bitmap is not None:
            self.bitmap.set_addr_range(offset, size)

    def check_discard(self, offset: int, size: int) -> None:
        """Raise what `discard` would raise for these arguments, and do nothing."""
        if offset < 0 or size < 1 or offset + size > self.size or (offset | size) % self.page_size:
            raise InvalidRegionError(
                f"discard of {offset:#x} + {size:#x}: must be whole pages "
                f"({self.page_size:#x}) of {self.size:#x} bytes"
            )
        if self.read_only:
            raise ReadOnlyRegionError(self.base + offset, size, "the region is read-only")

    def add_user(self, user: object) -> None:
        """Have `close` refuse while this object (a map, a device's cache) is alive; it is referred to weakly.

        Args:
            user: Anything that can be weakly referenced; its repr names it in the error. One whose attribute
                `closed` is true no longer counts.
        """
        self._users.add(user)

    def close(self, *, timeout: float = 0.0) -> None:
        """Unmap the memory and close the descriptor; closing twice is fine.

        Args:
            timeout: Seconds to wait for whoever still uses the region: maps, slices, views cut from slices,
                what `add_user` was told. 0: do not wait.

        Raises:
            RegionBusyError: Somebody still does, and is named with the place where it was made; nothing has
                changed.
        """
        if users := self._users.wait(timeout):
            raise RegionBusyError(repr(self), users)
        self._mapping = None
        if self._fd_closer is not None:
            self._fd_closer()


def _make_mapping(
    base: int,
    size: int,
    prefault: bool,
    *,
    fd: int = -1,
    offset: int = 0,
    shared: bool,
    read_only: bool = False,
) -> Mapping:
    mapping = Mapping(size, base, fd=fd, offset=offset, shared=shared, read_only=read_only)
    if prefault:
        mapping.prefault()
    return mapping


def _check_range(base: int, size: int, page: int, slot: int | None) -> None:
    if base < 0 or size < 1 or base + size > 1 << 64:
        raise InvalidRegionError(f"region {base:#x} + {size:#x}: must be at least a page within 0 .. 2^64")
    if base % page or size % page:
        raise InvalidRegionError(
            f"region {base:#x} + {size:#x}: base and size must be multiples of the page, {page:#x}"
        )
    if slot is not None and slot < 0:
        raise InvalidRegionError(f"slot is {slot}, must be 0 or more")
