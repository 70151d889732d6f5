"""The one signal this package uses, and the mask of a worker thread."""

from __future__ import annotations

import errno
import signal

from kvm_ioctls._errors import KvmStateError
from kvm_ioctls._ffi import check, lib

__all__ = ("KICK_SIGNAL", "block_signals", "install_kick")

KICK_SIGNAL: int = signal.SIGRTMIN
"""The signal of `VcpuFd.kick`: SIGRTMIN, which a program that runs vCPUs leaves to this package."""


def install_kick() -> None:
    """Install the empty C handler of the kick signal, without SA_RESTART; a second call does nothing.

    Raises:
        KvmStateError: The process already handles SIGRTMIN in its own way; its handler is unchanged.
    """
    ret = lib.kvmx_install_kick()
    if ret == -errno.EEXIST:
        raise KvmStateError(
            f"signal {KICK_SIGNAL} (SIGRTMIN) has a handler already, and vCPU kicks need it; "
            "use another real-time signal for the other purpose"
        )
    check(ret, "sigaction", f"signal {KICK_SIGNAL}")


def block_signals() -> None:
    """Block every signal but the kick (and the thread's own faults) in the calling thread.

    For worker threads, so that Ctrl-C and friends always reach the main thread.

    Raises:
        KvmOSError: The kernel refused the mask.
    """
    check(lib.kvmx_block_signals(), "pthread_sigmask", "this thread")
