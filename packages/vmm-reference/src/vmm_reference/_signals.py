"""Signals that come before there is a machine to hand them to: what was begun is undone, whatever it was."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _SignalledError(BaseException):
    """A signal came, and nobody else had taken it over."""

    def __init__(self, number: int) -> None:
        self.number = number


def _abandon(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the first counts: a second must not end the clean-up
    raise _SignalledError(number)


def abandoned_by_signals(run: Callable[[], int]) -> int:
    """Return what `run` does; 128 + N when signal N ended it by an exception. On the main thread only.

    From the first moment: a terminal in raw mode must not outlive us, whenever the signal comes. `run` may
    install handlers of its own later.
    """
    before = {number: signal.signal(number, _abandon) for number in SIGNALS}
    try:
        return run()
    except _SignalledError as error:
        return 128 + error.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
