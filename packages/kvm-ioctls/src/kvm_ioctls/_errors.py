"""Everything this package raises on its own.

::

    KvmError
    ├── KvmOSError(OSError)          an ioctl failed: errno, ioctl, subject
    │   ├── KvmUnavailableError      /dev/kvm is missing, closed to us, or not KVM
    │   └── MsrError                 the kernel refused one MSR of a list
    ├── UnsupportedError             this kernel lacks a capability that the call needs
    │   └── WrongArchitectureError   the call exists on another architecture only
    ├── KvmStateError                our caller: the object cannot do that now
    │   ├── ClosedError              after close()
    │   ├── ForkedError              in a forked child
    │   └── VcpuBusyError            another thread is inside the vCPU
    └── KvmAbiError                  the kernel's run page contradicts its own ABI

Bad arguments raise ``ValueError`` or ``TypeError`` before anything reaches the kernel.
"""

from __future__ import annotations

import errno as _errno
import os

__all__ = (
    "ClosedError",
    "ForkedError",
    "KvmAbiError",
    "KvmError",
    "KvmOSError",
    "KvmStateError",
    "KvmUnavailableError",
    "MsrError",
    "UnsupportedError",
    "VcpuBusyError",
    "WrongArchitectureError",
)


class KvmError(Exception):
    """Root of every error of this package."""


class KvmOSError(KvmError, OSError):
    """An ioctl or open failed; ``errno`` and ``strerror`` are those of ``OSError``.

    Attributes:
        ioctl: Name of the failed call, such as ``KVM_SET_REGS``.
        subject: The object it was made on, such as ``vCPU 0``.
    """

    def __init__(self, number: int, ioctl: str, subject: str, hint: str = "") -> None:
        self.ioctl = ioctl
        self.subject = subject
        name = _errno.errorcode.get(number, str(number))
        tail = f"; {hint}" if hint else ""
        super().__init__(number, f"{ioctl} on {subject}: {os.strerror(number)} ({name}){tail}")

    def __str__(self) -> str:
        return str(self.strerror)


class KvmUnavailableError(KvmOSError):
    """The KVM device cannot be used here; the message says how to mend it."""


class MsrError(KvmOSError):
    """The kernel stopped at one MSR of a list; those before it were processed.

    Attributes:
        index: Number of the refused MSR.
        completed: How many entries before it were read or written.
    """

    def __init__(self, ioctl: str, subject: str, index: int, completed: int, total: int) -> None:
        self.index = index
        self.completed = completed
        super().__init__(
            _errno.EINVAL,
            ioctl,
            subject,
            f"MSR {index:#x} (entry {completed} of {total}) was refused, {completed} before it were done",
        )


class UnsupportedError(KvmError):
    """This kernel does not offer the capability that the call needs."""


class WrongArchitectureError(UnsupportedError):
    """The call exists on another architecture only; nothing reached the kernel.

    Attributes:
        method: Name of the call.
        arch: Where it exists, as `uname -m` has it.
        host: Where it was called.
    """

    def __init__(self, method: str, arch: str, host: str) -> None:
        self.method = method
        self.arch = arch
        self.host = host
        super().__init__(f"{method}() exists on {arch} only; this host is {host}")


class KvmStateError(KvmError):
    """The object is in a state that forbids the call; nothing was changed."""


class ClosedError(KvmStateError):
    """The object was closed before."""


class ForkedError(KvmStateError):
    """The object belongs to the parent process; KVM ties a VM to the address space that made it."""


class VcpuBusyError(KvmStateError):
    """Another thread is running this vCPU or is inside one of its calls.

    Attributes:
        thread: Its kernel thread id, or 0 if it left meanwhile.
    """

    def __init__(self, vcpu: int, thread: int) -> None:
        self.thread = thread
        super().__init__(
            f"vCPU {vcpu} is in use by thread {thread}; kick() it and wait until its run() has returned"
        )


class KvmAbiError(KvmError):
    """The shared run page holds values that the KVM ABI does not allow."""
