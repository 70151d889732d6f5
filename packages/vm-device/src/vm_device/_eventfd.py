"""An event fd with one owner."""

import os
from types import TracebackType

from vm_device._errors import ClosedError


class EventFd:
    """Owner of a Linux eventfd (eventfd(2)): non-blocking, close-on-exec, 64-bit counter.

    Args:
        initial: first counter value, 0 .. 2^32-1.
    """

    __slots__ = ("_fd",)

    def __init__(self, initial: int = 0) -> None:
        self._fd = os.eventfd(initial, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def fd(self) -> int:
        """The descriptor; stays owned by this object.

        Raises:
            ClosedError: after close().
        """
        if self._fd < 0:
            raise ClosedError("event fd")
        return self._fd

    def fileno(self) -> int:
        """As `fd`, for selectors."""
        return self.fd

    def write(self, n: int = 1) -> None:
        """Add `n` (1 .. 2^64-2) to the counter; a full counter stays as it is, for it is signalled already.

        Raises:
            ClosedError: after close().
        """
        try:
            os.eventfd_write(self.fd, n)
        except BlockingIOError:
            return

    def read(self) -> int | None:
        """Return the counter and reset it, or None when it is zero.

        Raises:
            ClosedError: after close().
        """
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "EventFd":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventFd {self._fd if self._fd >= 0 else 'closed'}>"
