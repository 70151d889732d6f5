"""One descriptor chain as a Python device sees it."""

from collections.abc import Iterator
from typing import NamedTuple

from vmm_memory import GuestMemory

from virtio_queue._stream import Reader, Writer


class Segment(NamedTuple):
    """One buffer of a chain.

    Attributes:
        addr: Guest address.
        len: Bytes, 0 to 2^32 - 1.
        writable: True when the device may write it; otherwise it may only read it.
    """

    addr: int
    len: int
    writable: bool


class DescriptorChain:
    """The buffers of one request, checked when the chain was popped (a copy: the guest cannot change it).

    All readable segments come before all writable ones, and each lay inside guest memory.

    Attributes:
        head: Descriptor index that names the chain in the used ring.
        segments: All buffers in order.
        memory: Where they lie.
    """

    __slots__ = ("head", "memory", "segments")

    def __init__(self, head: int, segments: tuple[Segment, ...], memory: GuestMemory) -> None:
        self.head = head
        self.segments = segments
        self.memory = memory

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def __repr__(self) -> str:
        return f"DescriptorChain(head={self.head}, segments={self.segments!r})"

    @property
    def readable(self) -> tuple[Segment, ...]:
        """The segments the device may only read."""
        return tuple(segment for segment in self.segments if not segment.writable)

    @property
    def writable(self) -> tuple[Segment, ...]:
        """The segments the device may write."""
        return tuple(segment for segment in self.segments if segment.writable)

    @property
    def readable_bytes(self) -> int:
        """Total length of the readable segments."""
        return sum(segment.len for segment in self.segments if not segment.writable)

    @property
    def writable_bytes(self) -> int:
        """Total length of the writable segments, the upper limit of the used length."""
        return sum(segment.len for segment in self.segments if segment.writable)

    def reader(self) -> Reader:
        """A byte stream over the readable segments, from their start."""
        return Reader(self.memory, [segment[:2] for segment in self.readable], head=self.head)

    def writer(self) -> Writer:
        """A byte stream over the writable segments, from their start."""
        return Writer(self.memory, [segment[:2] for segment in self.writable], head=self.head)

    def readv(self, fd: int, *, offset: int | None = None) -> int:
        """Fill the writable segments straight from a file, as `Writer.readv`; the used length.

        Args:
            fd: A readable, blocking descriptor.
            offset: Where in the file; None reads on at its position.

        Returns:
            Bytes read; fewer than `writable_bytes` only at the end of the file.

        Raises:
            TransferError: read(2) failed.
            GuestMemoryError: The memory went away since the chain was popped.
        """
        return self.writer().readv(fd, offset=offset)

    def writev(self, fd: int, *, offset: int | None = None) -> int:
        """Write the readable segments straight to a file, as `Reader.writev`.

        Args:
            fd: A writable, blocking descriptor.
            offset: Where in the file; None writes on at its position.

        Returns:
            Bytes written, `readable_bytes`.

        Raises:
            TransferError: write(2) failed.
            GuestMemoryError: The memory went away since the chain was popped.
        """
        return self.reader().writev(fd, offset=offset)
