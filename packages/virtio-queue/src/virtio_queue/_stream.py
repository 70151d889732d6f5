"""Byte streams over the buffers of a chain, however the driver cut them (VIRTIO 1.2, 2.7.4: no framing)."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vmm_memory import GuestMemory, TransferError, UnexpectedEofError

from virtio_queue._errors import DriverError, Reason
from virtio_queue._wire import WireStruct

_S = TypeVar("_S", bound=WireStruct)


class _Cursor:
    """Position in a list of (guest address, length); knows nothing of directions."""

    __slots__ = ("_head", "_memory", "_parts", "available", "consumed")

    def __init__(
        self, memory: GuestMemory, parts: Sequence[tuple[int, int]], *, head: int | None = None
    ) -> None:
        self._memory = memory
        self._head = head
        self._parts = [part for part in reversed(parts) if part[1]]  # a stack: the next part is the last
        self.available = sum(length for _, length in self._parts)
        self.consumed = 0

    def _require(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size is {size}, must not be negative")
        if size > self.available:
            raise DriverError(
                Reason.TOO_SHORT, head=self._head, position=self.consumed, value=size, limit=self.available
            )

    def _peek(self, size: int) -> Iterator[tuple[int, int]]:
        for addr, length in reversed(self._parts):
            if size == 0:
                return
            yield addr, min(size, length)
            size -= min(size, length)

    def _advance(self, size: int) -> None:
        self.available -= size
        self.consumed += size
        while size:
            addr, length = self._parts.pop()
            if size < length:
                self._parts.append((addr + size, length - size))
                return
            size -= length

    def skip(self, size: int) -> None:
        """Move on by `size` bytes.

        Args:
            size: Bytes, 0 to `available`.

        Raises:
            DriverError: The chain is shorter (TOO_SHORT); the position is unchanged.
            ValueError: `size` is negative.
        """
        self._require(size)
        self._advance(size)

    def _transfer(self, move: Callable[..., int], fd: int, size: int | None, offset: int | None) -> int:
        size = self.available if size is None else size
        self._require(size)
        try:
            moved = move(list(self._peek(size)), fd, offset=offset)
        except UnexpectedEofError as end:
            moved = end.completed
        except TransferError as error:
            self._advance(error.completed)
            raise
        self._advance(moved)
        return moved

    def _split(self, size: int) -> list[tuple[int, int]]:
        self._require(size)
        kept = list(self._peek(size))
        rest = _Cursor(self._memory, list(reversed(self._parts)))
        rest._advance(size)
        self._parts = kept[::-1]
        self.available = size
        return rest._parts[::-1]


class Reader(_Cursor):
    """Reads the device-readable part of a chain as one stream of bytes.

    Attributes:
        available: Bytes that are left.
        consumed: Bytes read or skipped so far.
    """

    __slots__ = ()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes.

        Args:
            size: Bytes, 0 to `available`.

        Raises:
            DriverError: The chain is shorter (TOO_SHORT); the position is unchanged.
            GuestMemoryError: The memory went away since the chain was popped; the position is unchanged.
            ValueError: `size` is negative.
        """
        self._require(size)
        data = b"".join([self._memory.read(addr, length) for addr, length in self._peek(size)])
        self._advance(size)
        return data

    def read_all(self) -> bytes:
        """All bytes that are left, which a guest can make 4 GiB: look at `available` first.

        Raises:
            GuestMemoryError: As for `read`.
        """
        return self.read(self.available)

    def read_struct(self, kind: type[_S]) -> _S:
        """The next bytes as a header.

        Raises:
            DriverError: The chain is shorter (TOO_SHORT); the position is unchanged.
            GuestMemoryError: As for `read`.
        """
        return kind.from_bytes(self.read(kind.SIZE))

    def writev(self, fd: int, size: int | None = None, *, offset: int | None = None) -> int:
        """Write the next bytes straight to a file; interrupted and short writes are continued.

        Args:
            fd: A writable, blocking descriptor.
            size: Bytes, 0 to `available`; None for all.
            offset: Where in the file; None writes on at its position.

        Returns:
            Bytes written, `size`.

        Raises:
            DriverError: The chain is shorter (TOO_SHORT); nothing was written.
            TransferError: write(2) failed; the position is behind what was written.
            GuestMemoryError: As for `read`.
            ValueError: `size` is negative.
        """
        return self._transfer(self._memory.gather_to_fd, fd, size, offset)

    def split(self, size: int) -> "Reader":
        """Keep the next `size` bytes in this stream and return another one over the rest.

        Raises:
            DriverError: The chain is shorter (TOO_SHORT); both streams are unchanged.
            ValueError: `size` is negative.
        """
        return Reader(self._memory, self._split(size), head=self._head)


class Writer(_Cursor):
    """Writes the device-writable part of a chain as one stream of bytes.

    Attributes:
        available: Bytes of room that are left.
        consumed: Bytes written or skipped so far.
    """

    __slots__ = ()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, marking the pages dirty.

        Raises:
            DriverError: There is less room (TOO_SHORT); nothing is written.
            GuestMemoryError: The memory went away since the chain was popped; the position is unchanged.
        """
        view = memoryview(data).cast("B")
        self._require(len(view))
        start = 0
        for addr, length in self._peek(len(view)):
            self._memory.write(addr, view[start : start + length])
            start += length
        self._advance(len(view))

    def write_struct(self, header: WireStruct) -> None:
        """Write a header.

        Raises:
            DriverError: There is less room (TOO_SHORT); nothing is written.
            GuestMemoryError: As for `write`.
            ValueError: A field does not fit; nothing is written.
        """
        self.write(header.to_bytes())

    def readv(self, fd: int, size: int | None = None, *, offset: int | None = None) -> int:
        """Fill the next bytes straight from a file; interrupted and short reads are continued.

        Args:
            fd: A readable, blocking descriptor.
            size: Bytes, 0 to `available`; None for all.
            offset: Where in the file; None reads on at its position.

        Returns:
            Bytes read; fewer than `size` only at the end of the file.

        Raises:
            DriverError: There is less room (TOO_SHORT); nothing was read.
            TransferError: read(2) failed; the position is behind what was read.
            GuestMemoryError: As for `write`.
            ValueError: `size` is negative.
        """
        return self._transfer(self._memory.scatter_from_fd, fd, size, offset)

    def split(self, size: int) -> "Writer":
        """Keep the next `size` bytes in this stream and return another one over the rest.

        Raises:
            DriverError: There is less room (TOO_SHORT); both streams are unchanged.
            ValueError: `size` is negative.
        """
        return Writer(self._memory, self._split(size), head=self._head)
