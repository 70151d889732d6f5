"""A timer that a guest may move as often as it likes."""

import time
from collections.abc import Callable
from typing import Final

__all__ = ("CallLater", "WakeUp")

CallLater = Callable[[float, Callable[[], object]], object]
"""`call_later(seconds, callback)`, as of EventManager."""

# A timer cannot be taken back, so the sooner one is added beside it. Looking once a minute bounds how many
# there can be, however a guest moves its alarm.
_LONGEST: Final = 60.0


class WakeUp:
    """Calls back soon enough, at times perhaps too early: whoever is called looks at the clock.

    Not thread-safe: `within` is called, and the callback made, under the device's own lock by the device.

    Args:
        call_later: the event loop's; None, and nothing ever happens.
        callback: what to call.
        clock: seconds, of the loop's kind.
    """

    def __init__(
        self,
        call_later: CallLater | None,
        callback: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_later = call_later
        self._callback = callback
        self._clock = clock
        self._due: float | None = None

    def within(self, seconds: float) -> None:
        """Have the callback called after at most so many seconds (>= 0), a minute if there are more."""
        if self._call_later is None:
            return
        delay = min(seconds, _LONGEST)
        due = self._clock() + delay
        if self._due is None or due < self._due:
            self._due = due
            self._call_later(delay, lambda: self._woken(due))

    def _woken(self, due: float) -> None:
        if self._due == due:
            self._due = None
        self._callback()
