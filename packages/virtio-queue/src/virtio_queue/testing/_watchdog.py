"""A step of which there is no end fails, and can be shrunk, instead of hanging the whole run."""

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

LIMIT: Final = 2.0
"""Seconds of processor time that a step may take; the longest that is right takes some ms."""


@contextmanager
def comes_back(what: str, seconds: float = LIMIT) -> Iterator[None]:
    """Raise in the block when it takes too long: in the main thread, and between two steps of Python.

    Args:
        what: Named by the error.
        seconds: Processor time of the whole process, more than 0.

    Raises:
        AssertionError: The block did not end in time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{what} took more than {seconds:g} s of processor time: is there an end of it?")

    # A collection of all that a long run holds takes seconds under a sanitizer, and is no part of the block.
    collecting = gc.isenabled()
    gc.disable()
    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        if collecting:
            gc.enable()
