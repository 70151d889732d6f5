"""What a guest can make us print has a lid."""

import logging
import threading

import pytest
from vmm_reference import _logging
from vmm_reference._logging import RateLimit


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(_logging.time, "monotonic", lambda: now[0])
    return now


def record(message, *args, name="device"):
    """Make a log record."""
    return logging.LogRecord(name, logging.WARNING, "file", 1, message, args, None)


def test_burst_then_silence(clock):
    """Ten of a kind pass, the eleventh does not, whatever values it carries."""
    limit = RateLimit(burst=10, period=5)
    assert [limit.filter(record("bad address %#x", n)) for n in range(12)] == [True] * 10 + [False] * 2


def test_kinds_do_not_silence_each_other(clock):
    """Another message, and the same one of another logger, have budgets of their own."""
    limit = RateLimit(burst=1)
    assert limit.filter(record("a"))
    assert limit.filter(record("b"))
    assert limit.filter(record("a", name="other"))
    assert not limit.filter(record("a"))


def test_the_number_suppressed_is_told(clock):
    """After the period the next record says how many there were, once."""
    limit = RateLimit(burst=2, period=5)
    for _ in range(7):
        limit.filter(record("bad %d", 1))
    clock[0] = 5.0
    late = record("bad %d", 2)
    assert limit.filter(late)
    assert late.getMessage() == "bad 2 (5 like this were suppressed)"
    clock[0] = 10.0
    later = record("bad %d", 3)
    assert limit.filter(later)
    assert later.getMessage() == "bad 3"


def test_endless_kinds_take_no_endless_memory(clock):
    """Messages made without a template are forgotten in time."""
    limit = RateLimit()
    for number in range(10_000):
        limit.filter(record(f"bad address {number}"))
    assert len(limit._kinds) <= 256


def test_threads_share_one_budget():
    """Eight threads get as much as one."""
    limit, passed = RateLimit(burst=50, period=3600), []

    def complain():
        passed.extend(limit.filter(record("bad")) for _ in range(500))

    threads = [threading.Thread(target=complain) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 50


@pytest.mark.parametrize(
    ("verbosity", "level"), [(0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG), (9, logging.DEBUG)]
)
def test_verbosity(verbosity, level, capsys):
    """-v and -vv, more changes nothing; setting up twice prints once."""
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    try:
        _logging.set_up(verbosity)
        _logging.set_up(verbosity)
        assert root.level == level
        logging.getLogger("device").error("out of %s", "order")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("vmm: ")
        assert line.endswith(" ms device: out of order")
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers
