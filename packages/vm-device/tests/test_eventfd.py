"""Event fds."""

import os
import select

import pytest
from vm_device import ClosedError, EventFd


def test_counts_and_resets():
    """Reads give the sum and clear it; an empty one reads None instead of blocking."""
    with EventFd(2) as event:
        event.write()
        event.write(4)
        assert event.read() == 7
        assert event.read() is None
        assert select.select([event], [], [], 0)[0] == []
        event.write()
        assert select.select([event], [], [], 0)[0] == [event]


def test_a_full_counter_stays_signalled():
    """A guest that never consumes its interrupts cannot block or fail the writer."""
    with EventFd() as event:
        event.write(2**64 - 2)
        event.write()
        assert event.read() == 2**64 - 2


def test_ownership():
    """Closed on exec and once; afterwards each use says so."""
    event = EventFd()
    assert not os.get_inheritable(event.fd)
    event.close()
    event.close()
    for use in (event.write, event.read, event.fileno):
        with pytest.raises(ClosedError, match="event fd is closed"):
            use()
    assert repr(event) == "<EventFd closed>"
