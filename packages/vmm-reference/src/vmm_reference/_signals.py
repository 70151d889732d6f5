"""Signals that come before there is a machine to hand them to."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _SignalledError(BaseException):
    """A signal came while somebody waited."""


class EarlySignals:
    """Keeps the first signal for somebody to look at.

    A handler that raises wherever it is called leaves half-made things behind: a raw terminal whose owner
    nobody knows yet, a lock that is never released. So it raises only where `interrupting` says so.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._interrupting = False

    def take(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal; only the first counts: a second must not end what the first began."""
        if self.came is None:
            self.came = number
            if self._interrupting:
                raise _SignalledError

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal, also one that came before, end what is done inside by an exception."""
        self._interrupting = True
        try:
            if self.came is not None:
                raise _SignalledError
            yield
        finally:
            self._interrupting = False


def with_early_signals(run: Callable[[EarlySignals], int]) -> int:
    """Return what `run` does; 128 + N when signal N ended it by an exception. On the main thread only.

    `run` may install handlers of its own later.
    """
    early = EarlySignals()
    before = {number: signal.signal(number, early.take) for number in SIGNALS}
    try:
        return run(early)
    except _SignalledError:
        assert early.came is not None
        return 128 + early.came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
