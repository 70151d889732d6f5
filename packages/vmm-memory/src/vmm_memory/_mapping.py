"""How bytes get behind a region: memfd, mmap, huge pages, prefault."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path
from typing import Final

from ._errors import FileTooSmallError, HugepageError, InvalidRegionError, MappingError
from ._ffi import CData, address_of, check, ffi, lib

__all__ = ("HOST_PAGE", "Mapping", "make_memfd", "reopen_file")

HOST_PAGE: Final = mmap.PAGESIZE
"""Bytes of a page of this host."""
# The host address has the guest address' offset within this much, so that KVM and THP can use 2 MiB pages.
_CONGRUENCE: Final = 2 << 20
_MFD_HUGE_SHIFT: Final = 26


class Mapping:
    """`size` bytes of host memory between two PROT_NONE pages; unmapped when the last view of it is gone.

    The C pointer is what owns the pages. What `export` returns and every view made from it refer to that
    pointer, so no Python code, however careless, can hold a view of unmapped memory.
    """

    __slots__ = ("_pointer", "host", "page_size", "read_only", "shared", "size")

    def __init__(
        self, size: int, base: int, *, fd: int = -1, offset: int = 0, shared: bool, read_only: bool = False
    ) -> None:
        self.page_size: Final = HOST_PAGE if fd < 0 else _backing_page(fd)
        huge = self.page_size > HOST_PAGE
        flags = (shared and lib.VMM_MEM_SHARED) | (read_only and lib.VMM_MEM_READONLY)
        out = ffi.new("struct vmm_mapping *")
        align = max(self.page_size, _CONGRUENCE if size >= _CONGRUENCE else HOST_PAGE)
        rc = lib.vmm_mem_map(size, base, align, fd, offset, flags | (huge and lib.VMM_MEM_RESERVE), out)
        if rc == -errno.ENOMEM and huge:
            raise _no_hugepages(errno.ENOMEM, size, self.page_size)
        if rc == -errno.EACCES:
            cure = "open the file read-write, or pass read_only=True or shared=False"
            raise MappingError(errno.EACCES, f"mmap of fd {fd} for writing was refused: {cure}")
        check(rc, f"mmap of {size:#x} bytes (fd {fd}, offset {offset:#x})")
        # SAFETY: host starts size mapped bytes; the destructor runs once, after the last view let go of the
        # pointer.
        self._pointer: Final = ffi.gc(out.host, _unmapper(out.reserve, out.reserved), size)
        self.host: Final = address_of(self._pointer)
        self.shared: Final = shared
        self.size: Final = size
        self.read_only: Final = read_only

    @property
    def pointer(self) -> CData:
        """The owning C pointer: whoever keeps it keeps the pages."""
        return self._pointer

    def export(self) -> memoryview:
        """A new buffer over all of it (writable: callers make read-only views of read-only mappings)."""
        # SAFETY: the buffer keeps the pointer, hence the mapping, alive; size is what was mapped there.
        return ffi.buffer(self._pointer, self.size)

    def prefault(self) -> None:
        """Have the kernel back every page now instead of at the guest's first touch.

        Raises:
            MappingError: Not enough memory; pages that were had stay.
        """
        while (rc := lib.vmm_mem_prefault(self._pointer, self.size, not self.read_only)) == -errno.EINTR:
            pass
        if rc in {-errno.ENOMEM, -errno.EFAULT}:
            raise MappingError(
                -rc, f"prefault of {self.size:#x} bytes: the host has not that much memory free"
            )
        check(rc, f"prefault of {self.size:#x} bytes")

    def discard(self, start: int, size: int, fd: int, offset: int) -> None:
        """Give [start, start + size) back to the host; it reads as zero afterwards."""
        # SAFETY: the region checked the range against the mapping's size.
        rc = lib.vmm_mem_discard(self._pointer + start, size, fd, offset + start, self.shared)
        check(rc, f"discard of {size:#x} bytes at offset {start:#x}")


def _unmapper(reserve: CData, reserved: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    owner = os.getpid()
    unmap, getpid = lib.vmm_mem_unmap, os.getpid

    def destroy(_: CData) -> None:
        # A forked child never had this mapping (MADV_DONTFORK); something else may lie at the address by now.
        if getpid() == owner:
            unmap(reserve, reserved)

    return destroy


def make_memfd(name: str, size: int, huge_page: int | None) -> int:
    """A sealed memfd of `size` bytes: nobody we pass it to can shrink it under a running guest.

    Args:
        name: Shown as /memfd:NAME in /proc/PID/maps; at most 249 bytes.
        size: Bytes, a multiple of the page size.
        huge_page: Bytes per huge page, or None for the host's page size.

    Returns:
        The file descriptor, close-on-exec; the caller owns it.

    Raises:
        HugepageError: The kernel has no huge pages of that size.
        MappingError: The kernel refused the file or its size; nothing is left behind.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    if huge_page is not None:
        flags |= os.MFD_HUGETLB | ((huge_page.bit_length() - 1) << _MFD_HUGE_SHIFT)
    try:
        fd = os.memfd_create(name, flags)
    except OSError as error:
        if huge_page is not None:
            raise _no_hugepages(error.errno or errno.EINVAL, size, huge_page) from error
        raise MappingError(error.errno, f"memfd_create({name!r}): {error.strerror}") from error
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        os.close(fd)
        raise MappingError(error.errno, f"memfd {name!r} of {size:#x} bytes: {error.strerror}") from error
    return fd


def reopen_file(fd: int, offset: int, size: int) -> int:
    """Check that a file can back [offset, offset + size) and duplicate its descriptor.

    Returns:
        A close-on-exec duplicate; the caller owns it.

    Raises:
        FileTooSmallError: It ends before offset + size.
        InvalidRegionError: It is no regular file (files on hugetlbfs and memfds are).
        MappingError: fd is not open.
    """
    try:
        about = os.fstat(fd)
    except OSError as error:
        raise MappingError(error.errno, f"file descriptor {fd}: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):
        raise InvalidRegionError(f"file descriptor {fd} is no regular file (mode {about.st_mode:#o})")
    if about.st_size < offset + size:
        raise FileTooSmallError(about.st_size, offset + size)
    return os.dup(fd)


def _backing_page(fd: int) -> int:
    out = ffi.new("uint64_t *")
    check(lib.vmm_mem_backing_page(fd, out), f"fstatfs of fd {fd}")
    return int(out[0])


def _no_hugepages(code: int, size: int, page_size: int) -> HugepageError:
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{page_size >> 10}kB")
    needed = size // page_size
    try:
        free: int | None = int((pool / "free_hugepages").read_text())
    except (OSError, ValueError):
        free = None
    if free is None:
        sizes = ", ".join(sorted(p.name for p in pool.parent.glob("hugepages-*"))) or "none"
        cure = f"this kernel has no pool of that size (it has: {sizes}); choose another or hugepages=False"
    else:
        cure = f"as root: echo {needed} > {pool}/nr_hugepages, or use hugepages=False"
    message = f"{needed} huge pages of {page_size >> 10} KiB needed, {free or 0} free: {cure}"
    return HugepageError(code, message, page_size=page_size, needed=needed, free=free)
