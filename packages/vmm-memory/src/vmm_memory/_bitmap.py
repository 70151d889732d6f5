"""The dirty bitmap: one atomic bit per page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._errors import InvalidRegionError
from ._ffi import CData, ffi, lib
from ._types import ReadableBuffer

__all__ = ("AtomicBitmap",)

_RUNS_PER_CALL: Final = 256


class AtomicBitmap:
    """Which pages of a region were written since the last harvest.

    Writers (vCPU logs, device threads, C code) set bits while a harvester takes them. Each 64-bit word is
    exchanged atomically: a bit that is set during `get_and_reset` is in that result or in the next one, never
    lost, never in both. A page's bit is set after its bytes are written, so who takes the bit first and then
    copies the page has them.

    Args:
        byte_size: Bytes covered, at least 1.
        page_size: Bytes per bit, a power of two. KVM's dirty log counts in pages of the host, 4096 on x86_64.

    Raises:
        InvalidRegionError: byte_size or page_size are out of range.
    """

    __slots__ = ("_bits", "_shift", "_words", "byte_size", "page_size")

    def __init__(self, byte_size: int, page_size: int = 4096) -> None:
        if byte_size < 1 or byte_size >= 1 << 64:
            raise InvalidRegionError(f"bitmap byte_size is {byte_size:#x}, must be in 1 .. 2^64 - 1")
        if not 1 <= page_size < 1 << 64 or page_size & (page_size - 1):
            raise InvalidRegionError(f"bitmap page_size is {page_size:#x}, must be a power of two below 2^64")
        self.byte_size: Final = byte_size
        self.page_size: Final = page_size
        self._shift: Final = page_size.bit_length() - 1
        self._bits: Final = -(-byte_size // page_size)
        self._words: Final[CData] = ffi.new("uint64_t[]", -(-self._bits // 64))

    def __len__(self) -> int:
        """How many pages are covered."""
        return self._bits

    def __repr__(self) -> str:
        return f"<AtomicBitmap {self.count()} of {self._bits} pages of {self.page_size:#x} dirty>"

    @property
    def words(self) -> CData:
        """The words, for C: `uint64_t[]`, valid while the bitmap lives."""
        return self._words

    @property
    def shift(self) -> int:
        """log2 of page_size."""
        return self._shift

    def set_addr_range(self, offset: int, size: int) -> None:
        """Mark every page touched by a byte range; what lies past the end is ignored.

        Args:
            offset: First byte, counted from the region's base, 0 .. 2^64 - 1.
            size: Bytes; 0 marks nothing.
        """
        lib.vmm_bits_set(self._words, self._bits, *self._pages(offset, size))

    def reset_addr_range(self, offset: int, size: int) -> None:
        """Clear every page touched by a byte range; arguments as in `set_addr_range`."""
        lib.vmm_bits_clear(self._words, self._bits, *self._pages(offset, size))

    def is_addr_set(self, offset: int) -> bool:
        """Is the page of this byte dirty? False past the end."""
        return bool(lib.vmm_bits_test(self._words, self._bits, offset >> self._shift))

    def set_bit(self, page: int) -> None:
        """Mark one page by number; numbers past the end are ignored."""
        lib.vmm_bits_set(self._words, self._bits, page, 1)

    def reset_bit(self, page: int) -> None:
        """Clear one page by number; numbers past the end are ignored."""
        lib.vmm_bits_clear(self._words, self._bits, page, 1)

    def is_bit_set(self, page: int) -> bool:
        """Is this page dirty? False past the end."""
        return bool(lib.vmm_bits_test(self._words, self._bits, page))

    def count(self) -> int:
        """How many pages are dirty now."""
        return lib.vmm_bits_count(self._words, self._bits)

    def reset(self) -> None:
        """Clear everything."""
        lib.vmm_bits_clear(self._words, self._bits, 0, self._bits)

    def get_and_reset(self) -> AtomicBitmap:
        """Take all dirty bits out.

        Returns:
            A new bitmap of the same shape with the bits that were set; nobody else writes to it.
        """
        taken = AtomicBitmap(self.byte_size, self.page_size)
        lib.vmm_bits_take(self._words, self._bits, taken._words)
        return taken

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Dirty byte ranges in ascending order.

        Yields:
            (offset, size) in bytes from the region's base; neighbours are merged, the last one is cut at
            byte_size. Bits that change meanwhile may or may not be seen: iterate over what `get_and_reset`
            returned.
        """
        runs = ffi.new("struct vmm_run[]", _RUNS_PER_CALL)
        start = 0
        while start < self._bits:
            found = lib.vmm_bits_runs(self._words, self._bits, start, _RUNS_PER_CALL, runs)
            for i in range(found):
                offset = runs[i].first << self._shift
                yield offset, min(runs[i].count << self._shift, self.byte_size - offset)
            if found < _RUNS_PER_CALL:
                return
            start = runs[found - 1].first + runs[found - 1].count

    def merge(self, log: ReadableBuffer | AtomicBitmap, page_size: int = 4096) -> None:
        """OR another bitmap in, such as the log of KVM_GET_DIRTY_LOG (Documentation/virt/kvm/api.rst 4.8).

        Args:
            log: 64-bit little-endian words, bit 0 of the first is the page at the region's base; as many
                words as byte_size needs at that page size. Or an AtomicBitmap of the same byte_size.
            page_size: Bytes per bit of `log`; ignored for an AtomicBitmap. A coarser log marks all pages
                below each of its bits, a finer one the page around.

        Raises:
            InvalidRegionError: The log covers another number of pages; nothing was merged.
        """
        if isinstance(log, AtomicBitmap):
            page_size = log.page_size
            log = log.to_bytes()
        if not 1 <= page_size < 1 << 64 or page_size & (page_size - 1):
            raise InvalidRegionError(
                f"dirty log page_size is {page_size:#x}, must be a power of two below 2^64"
            )
        pages = -(-self.byte_size // page_size)
        wanted = -(-pages // 64) * 8
        # SAFETY: from_buffer pins the buffer for the call; its length is compared with what C will read.
        source = ffi.from_buffer("char[]", log)
        if len(source) != wanted:
            raise InvalidRegionError(
                f"dirty log has {len(source)} bytes, must have {wanted} for {pages} pages of {page_size:#x}"
            )
        shift = page_size.bit_length() - 1
        lib.vmm_bits_merge(self._words, self._bits, self._shift, source, pages, shift)

    def to_bytes(self) -> bytes:
        """The words as they are now, little-endian: KVM's log format, and good for the wire."""
        # SAFETY: the buffer covers exactly the array that self._words owns.
        return bytes(ffi.buffer(self._words))

    def _pages(self, offset: int, size: int) -> tuple[int, int]:
        if offset < 0 or size < 0:
            raise InvalidRegionError(f"dirty range {offset:#x} + {size:#x}: neither may be negative")
        if size == 0 or offset >= self.byte_size:
            return 0, 0
        size = min(size, self.byte_size - offset)
        first = offset >> self._shift
        return first, ((offset + size - 1) >> self._shift) - first + 1
