"""Threads that no signal reaches."""

import signal
import threading
from typing import Final

__all__ = ("start_masked",)

# A thread that blocks its own faults would die without a word from faulthandler.
_MASK: Final = frozenset(signal.valid_signals()) - {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
}


def start_masked(thread: threading.Thread) -> None:
    """Start a thread with every signal blocked but its own faults.

    Python runs handlers in the main thread only, and a signal that the kernel gives to another one does not
    wake it. A mask is inherited: blocking before the start leaves no moment in which one could land there.

    Args:
        thread: One that was not started.

    Raises:
        RuntimeError: It was started before, or the host gives no more threads; our mask is as it was.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # Inside: it runs what handlers are due, and one of them may raise.
        signal.pthread_sigmask(signal.SIG_BLOCK, _MASK)
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
