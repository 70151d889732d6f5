"""Threads that no signal reaches."""

import signal
import threading

import pytest
from vm_device import start_masked

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


def mask():
    """Return what the calling thread blocks."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_all_but_its_faults_are_blocked_from_the_start():
    """The new thread's mask is whole; ours is as it was, also when the thread cannot start."""
    before, seen = mask(), []
    thread = threading.Thread(target=lambda: seen.append(mask()))
    start_masked(thread)
    thread.join()
    blockable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert seen == [blockable - FAULTS]
    with pytest.raises(RuntimeError, match="once"):
        start_masked(thread)
    assert mask() == before
