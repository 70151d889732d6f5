"""An event loop over file descriptors, with timers, in a thread of its own."""

import heapq
import itertools
import logging
import selectors
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from vm_device._errors import ClosedError
from vm_device._eventfd import EventFd
from vm_device._threads import start_masked

_log = logging.getLogger("vm_device.events")

_MAX_FAILURES: Final = 16


class HasFileno(Protocol):
    """A file descriptor or something that has one."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


FileLike = int | HasFileno


class _Watch:
    __slots__ = ("active", "callback", "failures", "fd")

    def __init__(self, fd: int, callback: Callable[[int], object]) -> None:
        self.fd = fd
        self.callback = callback
        self.active = True
        self.failures = 0


def _log_error(error: Exception, source: str) -> None:
    _log.error("callback of %s failed", source, exc_info=error)


class EventManager:
    """Calls back when descriptors become ready (level-triggered) or timers expire.

    Callbacks run one at a time in the loop's thread. All methods may be called from any thread and from
    callbacks. An exception of a callback goes to `on_error` and the loop goes on; a descriptor whose
    callback fails 16 times in a row is dropped, and `on_error` told so, because a level-triggered loop would
    spin on it.

    Args:
        name: the thread's name.
        on_error: called with the exception and "fd N" or "timer"; by default they are logged.
    """

    def __init__(
        self, name: str = "vm-events", on_error: Callable[[Exception, str], object] = _log_error
    ) -> None:
        self.name = name
        self._on_error = on_error
        self._selector = selectors.DefaultSelector()
        self._wake = EventFd()
        self._selector.register(self._wake.fd, selectors.EVENT_READ, None)
        self._lock = threading.RLock()  # the tables
        self._dispatching = threading.RLock()  # held around each callback: remove() waits on it
        self._watches: dict[int, _Watch] = {}
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(
        self, fd: FileLike, callback: Callable[[int], object], events: int = selectors.EVENT_READ
    ) -> None:
        """Watch a descriptor.

        Args:
            fd: descriptor or object with fileno(); stays the caller's and must outlive the watch.
            callback: called with the ready events (selectors.EVENT_READ, EVENT_WRITE or both). It must
                consume what made the descriptor ready.
            events: what to wait for.

        Raises:
            KeyError: the descriptor is watched already.
            ClosedError: after close().
        """
        number = fd if isinstance(fd, int) else fd.fileno()
        with self._lock:
            self._require_open()
            watch = _Watch(number, callback)
            self._selector.register(number, events, watch)
            self._watches[number] = watch

    def remove(self, fd: FileLike) -> None:
        """Stop watching; once it returns in any thread but the loop's, the callback does not run any more.

        It waits for a callback that is running: hold no lock that a callback takes.

        Raises:
            KeyError: the descriptor is not watched.
        """
        number = fd if isinstance(fd, int) else fd.fileno()
        with self._lock:
            watch = self._watches.pop(number)
            watch.active = False  # events already collected in this batch must not reach it
            self._selector.unregister(number)
        with self._dispatching:
            pass

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Call back once, after `delay` seconds (>= 0). A timer pending at stop() is dropped.

        Raises:
            ClosedError: after close().
        """
        with self._lock:
            self._require_open()
            first = not self._timers or time.monotonic() + delay < self._timers[0][0]
            heapq.heappush(self._timers, (time.monotonic() + delay, next(self._serial), callback))
        if first:
            self._wake.write()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call back in the loop's thread as soon as it is free; raises as `call_later`."""
        self.call_later(0.0, callback)

    # -- the loop

    def run_once(self, timeout: float | None = None) -> int:
        """Wait once, at most `timeout` seconds (None: until something happens), and dispatch.

        Returns:
            How many callbacks ran.
        """
        ran = 0
        for key, events in self._selector.select(self._wait_time(timeout)):
            if key.data is None:
                self._drain_wake()
            else:
                ran += self._dispatch(key.data, events)
        return ran + self._run_timers()

    def run_forever(self) -> None:
        """Dispatch in the calling thread until `stop`."""
        while not self._stopping:
            self.run_once()

    def start(self) -> None:
        """Run the loop in a new daemon thread that blocks all signals.

        Raises:
            ClosedError: after close().
            RuntimeError: it runs already.
        """
        with self._lock:
            self._require_open()
            if self._thread is not None:
                raise RuntimeError(f"event manager {self.name!r} runs already")
            self._stopping = False
            self._thread = threading.Thread(target=self.run_forever, name=self.name, daemon=True)
            start_masked(self._thread)

    def stop(self) -> None:
        """End the loop and join its thread (unless called from it); idempotent."""
        self._stopping = True
        if not self._closed:
            self._wake.write()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            if thread.ident is not None:  # else a signal handler's exception came before its start
                thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop and release the selector; watched descriptors stay open; idempotent."""
        self.stop()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._selector.close()
                self._wake.close()
                self._watches.clear()
                self._timers.clear()

    def __enter__(self) -> "EventManager":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"event manager {self.name!r}")

    def _drain_wake(self) -> None:
        if not self._closed:  # a callback earlier in this batch may have closed the manager
            self._wake.read()

    def _wait_time(self, timeout: float | None) -> float | None:
        with self._lock:
            if not self._timers:
                return timeout
            until = max(0.0, self._timers[0][0] - time.monotonic())
        return until if timeout is None else min(until, timeout)

    def _dispatch(self, watch: _Watch, events: int) -> int:
        with self._dispatching:
            if not watch.active:
                return 0
            try:
                watch.callback(events)
                watch.failures = 0
            except Exception as error:  # noqa: BLE001 - every error of a callback goes to on_error
                self._failed(watch, error)
        return 1

    def _failed(self, watch: _Watch, error: Exception) -> None:
        self._report(error, f"fd {watch.fd}")
        watch.failures += 1
        if watch.failures >= _MAX_FAILURES and watch.active:
            self.remove(watch.fd)
            reason = (
                f"fd {watch.fd} is no longer watched: its callback failed {watch.failures} times in a row"
            )
            self._report(RuntimeError(reason), f"fd {watch.fd}")

    def _run_timers(self) -> int:
        ran, now = 0, time.monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return ran
                callback = heapq.heappop(self._timers)[2]
            ran += 1
            with self._dispatching:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - every error of a callback goes to on_error
                    self._report(error, "timer")

    def _report(self, error: Exception, source: str) -> None:
        try:
            self._on_error(error, source)
        except Exception:  # noqa: BLE001 - a broken handler must not end the loop either
            _log.exception("on_error itself failed while reporting %s: %s", source, error)
