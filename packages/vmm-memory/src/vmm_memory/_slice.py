"""Zero-copy windows into guest memory."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

from ._errors import ClosedError, RegionBusyError

__all__ = ("GuestSlice",)


class GuestSlice:
    """A window of one region as a memoryview; made by `get_slice`, closed by `close` or a `with` block.

    The region cannot be closed while the slice is open, nor while a view that was cut from it is alive:
    `view` is a plain memoryview, and what is made from it (slices of it, numpy.frombuffer, struct, ctypes)
    counts.

    Dirty rule: nobody sees writes through a view. A slice taken with write=True marks all of its pages when
    it is closed (or dropped); when it stays open for long, call `mark_dirty` after each write. Who writes
    through a view that outlives its slice marks the range itself (`GuestMemory.mark_dirty`). A slice taken
    with write=False hands out a read-only view.

    Bytes may change between two looks: the guest runs. Copy once, check the copy, use the copy.

    Attributes:
        address: Guest physical address of the first byte.
        size: Bytes.
        writable: Was it taken with write=True?
    """

    __slots__ = ("__weakref__", "_mark", "_owner", "_view", "address", "size", "writable")

    def __init__(
        self, owner: object, view: memoryview, address: int, mark: Callable[[int, int], None] | None
    ) -> None:
        self._view: memoryview | None = view if mark is not None else view.toreadonly()
        self._owner: object | None = owner
        self._mark = mark
        self.address: Final = address
        self.size: Final = len(view)
        self.writable: Final = mark is not None

    def __repr__(self) -> str:
        state = "closed" if self._view is None else "write" if self.writable else "read"
        return f"<GuestSlice {self.address:#x} + {self.size:#x} {state}>"

    def __len__(self) -> int:
        return self.size

    @property
    def view(self) -> memoryview:
        """The bytes themselves; release or drop what you derive from it before `close`.

        Raises:
            ClosedError: The slice was closed.
        """
        if self._view is None:
            raise ClosedError(
                f"slice {self.address:#x} + {self.size:#x} is closed; take a new one with get_slice"
            )
        return self._view

    @property
    def closed(self) -> bool:
        """Was the slice closed?"""
        return self._view is None

    def mark_dirty(self, offset: int = 0, size: int | None = None) -> None:
        """Mark pages that were written through the view, before the slice is closed.

        Args:
            offset: First byte within the slice.
            size: Bytes; None for all up to the end.

        Raises:
            ClosedError: The slice was closed, or it was not taken for writing.
            ValueError: The range leaves the slice.
        """
        if self._mark is None or self._view is None:
            raise ClosedError(f"{self!r} cannot be marked: it is not open for writing")
        count = self.size - offset if size is None else size
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ValueError(f"range {offset:#x} + {count:#x} leaves a slice of {self.size:#x} bytes")
        self._mark(offset, count)

    def close(self) -> None:
        """Mark what was writable and let go of the region; closing twice is fine.

        Raises:
            RegionBusyError: A buffer (of cffi, say) holds the view itself; the pages are marked, the slice
                stays open. Memoryviews and numpy arrays cut from the view do not count here: they keep the
                pages mapped, and the region cannot be closed before they are gone.
        """
        if self._view is None:
            return
        if self._mark is not None:
            self._mark(0, self.size)
        try:
            self._view.release()
        except BufferError as error:
            raise RegionBusyError(f"the view of {self!r}", ("a buffer made from it",)) from error
        self._view = self._owner = self._mark = None

    def __enter__(self) -> GuestSlice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A false dirty page costs one copy, a missed one corrupts a migrated guest.
        if getattr(self, "_view", None) is not None and self._mark is not None:
            self._mark(0, self.size)
