"""The event loop."""

import os
import selectors
import signal
import subprocess
import sys
import threading

import pytest
from vm_device import ClosedError, EventFd, EventManager


def test_dispatch_and_remove():
    """A ready descriptor is called back until it is removed."""
    with EventManager() as manager, EventFd() as event:
        seen = []
        manager.add(event, lambda events: seen.append((events, event.read())))
        with pytest.raises(KeyError):
            manager.add(event.fd, seen.append)
        event.write(3)
        assert manager.run_once(1.0) == 1
        assert seen == [(selectors.EVENT_READ, 3)]
        manager.remove(event)
        event.write()
        assert manager.run_once(0) == 0
        with pytest.raises(KeyError):
            manager.remove(event)


def test_no_ghost_events():
    """A callback that removes another descriptor of its batch prevents that call, even if it comes back."""
    with EventManager() as manager, EventFd() as first, EventFd() as second:
        calls = []

        def kill(other):
            calls.append(other)
            manager.remove(other)
            manager.add(other, lambda _: calls.append("ghost"))

        manager.add(first, lambda _: kill(second))
        manager.add(second, lambda _: kill(first))
        first.write()
        second.write()
        assert manager.run_once(1.0) == 1
        assert len(calls) == 1


def test_thread_blocks_signals_and_joins():
    """The loop's thread is named and blocks signals; the starter's mask is unchanged; stop joins."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    manager, ready, seen = EventManager("loop-x"), threading.Event(), []

    def look():
        seen.append((threading.current_thread().name, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        ready.set()

    manager.start()
    with pytest.raises(RuntimeError, match="'loop-x' runs already"):
        manager.start()
    manager.call_soon(look)
    assert ready.wait(60)
    manager.stop()
    manager.stop()
    assert seen[0][0] == "loop-x"
    assert signal.SIGUSR1 in seen[0][1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "loop-x"]
    manager.start()
    manager.close()
    manager.close()
    for use in (manager.start, lambda: manager.call_soon(look), lambda: manager.add(0, seen.append)):
        with pytest.raises(ClosedError, match="event manager 'loop-x' is closed"):
            use()


def test_errors_are_reported_and_the_loop_goes_on():
    """A failing callback reaches on_error; the others still run."""
    errors, done = [], threading.Event()
    manager = EventManager(on_error=lambda error, source: errors.append((str(error), source)))
    with EventFd() as bad, EventFd() as good:

        def fail(_):
            bad.read()
            raise ValueError("boom")

        def succeed(_):
            good.read()
            done.set()

        manager.add(bad, fail)
        manager.add(good, succeed)
        manager.start()
        bad.write()
        manager.call_soon(lambda: 1 // 0)
        manager.call_soon(good.write)
        assert done.wait(60)
        manager.close()
        assert sorted(errors, key=str) == [
            ("boom", f"fd {bad.fd}"),
            ("integer division or modulo by zero", "timer"),
        ]


def test_a_callback_that_always_fails_is_dropped():
    """A level-triggered descriptor nobody consumes cannot spin for ever."""
    errors = []
    with EventManager(on_error=lambda error, source: errors.append(error)) as manager, EventFd(1) as event:

        def fail(_):
            raise ValueError("boom")

        manager.add(event, fail)
        for _ in range(20):
            manager.run_once(0)
        assert len(errors) == 17
        assert "no longer watched" in str(errors[-1])


def test_a_broken_error_handler_is_logged(caplog):
    """Not even on_error may end the loop."""

    def broken(error, source):
        raise TypeError("handler")

    with EventManager(on_error=broken) as manager:
        manager.call_soon(lambda: 1 // 0)
        assert manager.run_once(1.0) == 1
    assert "on_error itself failed while reporting timer" in caplog.text


def test_default_handler_logs_the_traceback(caplog):
    """Without a handler the error is not swallowed."""
    with EventManager() as manager:
        manager.call_soon(lambda: 1 // 0)
        manager.run_once(1.0)
    assert "ZeroDivisionError" in caplog.text


def test_timers_run_in_order():
    """Timers run by due time, then by insertion, and only when due."""
    with EventManager() as manager:
        seen = []
        manager.call_later(0.02, lambda: seen.append("late"))
        manager.call_later(0.0, lambda: seen.append("a"))
        manager.call_later(0.0, lambda: seen.append("b"))
        manager.call_later(3600, lambda: seen.append("never"))
        while len(seen) < 3:
            manager.run_once()
        assert seen == ["a", "b", "late"]


def test_remove_waits_for_the_running_callback():
    """Once remove() returns in another thread, the callback is over and its resources can go."""
    inside, go, finished = threading.Event(), threading.Event(), []
    with EventManager() as manager, EventFd(1) as event:

        def slow(_):
            event.read()
            inside.set()
            go.wait(60)
            finished.append(1)

        manager.add(event, slow)
        manager.start()
        assert inside.wait(60)
        threading.Timer(0.02, go.set).start()
        manager.remove(event)
        assert finished == [1]


def test_close_from_a_callback():
    """A callback may end its own loop, even while the wake-up is still to be handled."""
    manager = EventManager()
    read_end, write_end = os.pipe()
    manager.add(read_end, lambda _: manager.close())
    os.write(write_end, b"x")
    manager.start()
    deadline = threading.Event()
    for _ in range(1000):
        if not [thread for thread in threading.enumerate() if thread.name == "vm-events"]:
            break
        deadline.wait(0.005)
    with pytest.raises(ClosedError):
        manager.call_soon(print)
    os.close(read_end)
    os.close(write_end)


INTERRUPTED_STARTS = """
import signal, sys
from vm_device import EventManager

class Interrupted(Exception):
    pass

def handler(number, frame):
    raise Interrupted

def profiler(frame, event, arg):
    global moments
    moments += event in ("call", "c_return")
    if moments == due:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGALRM)

signal.signal(signal.SIGALRM, handler)
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
moments = due = interrupted = 0
while moments == due:
    moments, due = 0, due + 1
    manager = EventManager("interrupted")
    try:
        sys.setprofile(profiler)
        manager.start()
    except Interrupted:
        interrupted += 1
    finally:
        sys.setprofile(None)
    manager.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
print(due, interrupted)
"""


def test_a_start_that_a_signal_handler_ends_can_be_closed():
    """The handler's exception comes out of start(), the mask is as before, close() works: at every moment.

    CPython runs handlers where functions begin and after those in C. In a process of its own, whose mask,
    profiler and handlers the test may change.
    """
    command = [sys.executable, "-c", INTERRUPTED_STARTS]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    due, interrupted = map(int, child.stdout.split())
    assert interrupted == due - 1 > 10
