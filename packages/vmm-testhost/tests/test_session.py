"""Delivery of the command's output."""

import os
import threading

from vmm_testhost._session import Streams, write_all


def test_non_blocking_stdout_gets_everything():
    """A descriptor that somebody made non-blocking still gets every byte."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    sent = os.urandom(300_000)  # more than a pipe holds
    thread = threading.Thread(target=lambda: (write_all(write, sent), os.close(write)))
    thread.start()
    with os.fdopen(read, "rb") as file:
        assert file.read() == sent
    thread.join()


def test_captured_streams_are_kept_apart():
    """Captured bytes go to the stream they came from, and none to a descriptor."""
    streams = Streams(None, -1, -1, False, {b"o": [], b"e": []})
    streams.take(b"o", b"1")
    streams.take(b"e", b"2")
    streams.take(b"o", b"3")
    assert (streams.output(b"o"), streams.output(b"e")) == (b"13", b"2")
