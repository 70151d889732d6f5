"""Log lines that a guest can cause, so that it cannot flood the log with them."""

import logging
import threading
import time
from collections.abc import Callable

LOGGER = logging.getLogger("virtio_devices")


class GuestLog:
    """At most `burst` lines per `period` seconds for one device; what was left out is counted."""

    def __init__(
        self,
        device: str,
        *,
        burst: int = 5,
        period: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._burst = burst
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()  # vCPU threads and the device thread both log
        self._window_start = clock()
        self._lines = 0
        self.suppressed = 0

    def _admit(self) -> tuple[bool, int]:
        with self._lock:
            now = self._clock()
            if now - self._window_start >= self._period:
                self._window_start, self._lines = now, 0
            if self._lines >= self._burst:
                self.suppressed += 1
                return False, 0
            self._lines += 1
            missed, self.suppressed = self.suppressed, 0
            return True, missed

    def warning(self, message: str, *args: object) -> None:
        """Log one line unless the budget of this period is spent."""
        admitted, missed = self._admit()
        if not admitted:
            return
        note = f" ({missed} more messages were suppressed)" if missed else ""
        LOGGER.warning("%s: " + message + "%s", self._device, *args, note)
