"""Events: JSON lines that neither fail nor block the machine."""

import contextlib
import json
import logging
import os
import resource
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_reference import ConfigError, EventMonitorConfig
from vmm_reference._events import EventMonitor


@pytest.fixture
def pipe():
    """A pipe: (to read, to write); what is left open is closed."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def lines(data):
    """Parse JSON lines."""
    return [json.loads(line) for line in data.splitlines()]


def test_one_object_a_line(tmp_path):
    """The fields are Cloud Hypervisor's, time goes forward, the file is made."""
    path = tmp_path / "events"
    monitor = EventMonitor.open(EventMonitorConfig(path))
    monitor.emit("vmm", "starting", {"host": "kvm"})
    monitor.emit("vm", "booted")
    monitor.close()
    first, second = lines(path.read_text())
    assert (first["source"], first["event"], first["properties"]) == ("vmm", "starting", {"host": "kvm"})
    assert (second["source"], second["event"], second["properties"]) == ("vm", "booted", {})
    times = [event["timestamp"]["secs"] * 10**9 + event["timestamp"]["nanos"] for event in (first, second)]
    assert 0 <= times[0] <= times[1] < 60 * 10**9


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False), max_size=5))
def test_any_property_is_one_line(properties):
    """Line ends and quotes in values stay inside their line."""
    read, write = os.pipe()
    monitor = EventMonitor(write)
    monitor.emit("vm", "e", properties)
    monitor.close()
    with open(read, "rb") as end:
        data = end.read()
    assert data.count(b"\n") == 1
    assert json.loads(data)["properties"] == properties


def test_a_file_is_truncated(tmp_path):
    """An older run's events do not stay behind ours."""
    path = tmp_path / "events"
    path.write_text("old\n" * 100)
    monitor = EventMonitor.open(EventMonitorConfig(path))
    monitor.emit("vm", "booted")
    monitor.close()
    assert len(lines(path.read_text())) == 1


def test_a_full_disk_costs_whole_lines_only(tmp_path, caplog):
    """What does not fit is dropped as a whole and counted once there is room; one warning."""
    path = tmp_path / "events"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monitor = EventMonitor.open(EventMonitorConfig(path))
    monitor.emit("vm", "first")
    # The limit stands for the disk's end: it, too, cuts a write short and then refuses (EFBIG).
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, before[1]))
    try:
        with caplog.at_level(logging.WARNING):
            monitor.emit("vm", "second", {"long": "x" * 100})
            monitor.emit("vm", "third", {"long": "x" * 100})
            assert [event["event"] for event in lines(path.read_text())] == ["first"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monitor.emit("vm", "fourth")
    monitor.close()
    assert [event["event"] for event in lines(path.read_text())] == ["first", "fourth"]
    assert lines(path.read_text())[1]["dropped"] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "events are lost while this lasts: File too large"
    ]


def test_descriptor_stays_the_callers(pipe):
    """fd= is duplicated: closing the monitor leaves the caller's own open."""
    monitor = EventMonitor.open(EventMonitorConfig(fd=pipe[1]))
    monitor.emit("vm", "booted")
    monitor.close()
    os.write(pipe[1], b"mine\n")
    assert os.read(pipe[0], 4096).endswith(b"\nmine\n")


def test_fifo_needs_no_reader(tmp_path):
    """A FIFO may be opened before its reader, which then gets everything."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monitor = EventMonitor.open(EventMonitorConfig(fifo))
    monitor.emit("vm", "booting")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    monitor.emit("vm", "booted")
    assert [event["event"] for event in lines(os.read(reader, 4096))] == ["booting", "booted"]
    os.close(reader)
    monitor.close()


def test_a_full_pipe_drops_and_counts(pipe):
    """Nobody reads: emit returns soon, and the next event that fits says how many are missing."""
    monitor = EventMonitor.open(EventMonitorConfig(fd=pipe[1]))
    os.set_blocking(pipe[1], False)
    while True:
        try:
            os.write(pipe[1], b"\n" * 512)
        except BlockingIOError:
            break
    for _ in range(3):
        monitor.emit("vm", "lost")
    os.set_blocking(pipe[0], False)
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe[0], 1 << 16):
            pass
    monitor.emit("vm", "kept")
    monitor.emit("vm", "kept as well")
    first, second = lines(os.read(pipe[0], 4096))
    assert (first["event"], first["dropped"], second["event"], "dropped" in second) == (
        "kept",
        3,
        "kept as well",
        False,
    )
    monitor.close()


def test_a_closed_reader_is_told_once(pipe, caplog):
    """A reader that went away ends the events with one warning, not the machine."""
    monitor = EventMonitor.open(EventMonitorConfig(fd=pipe[1]))
    os.close(pipe[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            monitor.emit("vm", "booted")
    assert [record.getMessage() for record in caplog.records] == ["events are lost from here on: Broken pipe"]
    monitor.close()


def test_a_full_disk_is_no_failure(caplog):
    """ENOSPC is told once."""
    monitor = EventMonitor(os.open("/dev/full", os.O_WRONLY))
    for _ in range(3):
        monitor.emit("vm", "booted")
    assert len(caplog.records) == 1
    monitor.close()


def test_threads_do_not_mix_lines(tmp_path):
    """Lines of eight threads arrive whole."""
    path = tmp_path / "events"
    monitor = EventMonitor.open(EventMonitorConfig(path))
    threads = [
        threading.Thread(target=lambda n=n: [monitor.emit("vm", "x" * 600, {"n": n}) for _ in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monitor.close()
    numbers = [event["properties"]["n"] for event in lines(path.read_text())]
    assert sorted(numbers) == sorted(list(range(8)) * 50)


def test_nothing_asked_for_nothing_done():
    """Without the option events vanish; after close they do as well."""
    monitor = EventMonitor.open(None)
    monitor.emit("vm", "booted")
    monitor.close()
    monitor.close()


def test_a_descriptor_to_read_from(pipe):
    """A descriptor that cannot be written to is refused at once, not at the first event."""
    with pytest.raises(ConfigError, match=rf"^--event-monitor fd: {pipe[0]}: not open for writing$"):
        EventMonitor.open(EventMonitorConfig(fd=pipe[0]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            EventMonitorConfig("/nonexistent/e"),
            "--event-monitor path: /nonexistent/e: No such file or directory",
        ),
        (EventMonitorConfig("/"), "--event-monitor path: /: Is a directory"),
        (EventMonitorConfig(fd=987), "--event-monitor fd: 987: Bad file descriptor"),
        (EventMonitorConfig(fd=1 << 70), f"--event-monitor fd: {1 << 70}: no such descriptor"),
    ],
)
def test_what_cannot_be_opened(config, message):
    """The option, the value and the host's reason, in one line."""
    from pathlib import Path

    import attrs

    config = attrs.evolve(config, path=None if config.path is None else Path(config.path))
    with pytest.raises(ConfigError) as caught:
        EventMonitor.open(config)
    assert str(caught.value) == message
