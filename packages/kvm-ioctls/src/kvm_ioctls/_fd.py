"""What Kvm, VmFd and DeviceFd share: one owner per file descriptor, and the fork guard."""

from __future__ import annotations

import os
import warnings
from typing import Self

from kvm_ioctls._errors import ClosedError, ForkedError
from kvm_ioctls._ffi import buffer, check, lib
from kvm_ioctls._wire import check_u64

__all__ = ("OwnedFd", "generation")

_generation = 0


def _forked() -> None:
    global _generation  # noqa: PLW0603 - the one process-wide fact this package keeps
    _generation += 1


os.register_at_fork(after_in_child=_forked)


def generation() -> int:
    """Return how many forks lie between this process and the one that imported the package."""
    return _generation


class OwnedFd:
    """A KVM file descriptor with exactly one owner; also a context manager that closes it."""

    def __init__(self, fd: int, subject: str) -> None:
        self._fd = fd
        self._subject = subject
        self._born = _generation

    def fileno(self) -> int:
        """Return the descriptor, which stays owned by this object.

        Raises:
            ClosedError: After ``close()``.
            ForkedError: In a forked child.
        """
        if self._born != _generation:
            raise ForkedError(f"{self._subject} belongs to the parent process; open a new one here")
        if self._fd < 0:
            raise ClosedError(f"{self._subject} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; a second call does nothing. In a forked child only its copy is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        self.fileno()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0 and self._born == _generation:
            warnings.warn(f"{self._subject} was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._subject} fd={self._fd}>"

    def _ioctl(self, number: int, data: bytearray) -> int:
        return check(lib.kvmx_ioctl(self.fileno(), number, buffer(data)), number, self._subject)

    def _ioctl_value(self, number: int, value: int = 0) -> int:
        check_u64(argument=value)
        return check(lib.kvmx_ioctl_value(self.fileno(), number, value), number, self._subject)
