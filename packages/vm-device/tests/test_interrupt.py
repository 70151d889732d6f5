"""Interrupt lines."""

from vm_device import EventFd, EventFdInterrupt, Interrupt
from vm_device.testing import FakeInterrupt


def test_eventfd_line():
    """A trigger is one count; a level sends an edge per rise only."""
    with EventFd() as event:
        line: Interrupt = EventFdInterrupt(event)
        assert line.eventfd == event.fd
        line.trigger()
        for level in (True, True, False, True):
            line.set_level(level)
        assert event.read() == 3


def test_fake_line_records():
    """The double counts edges and calls back on edges and rises."""
    calls = []
    fake = FakeInterrupt(lambda: calls.append(1))
    line: Interrupt = fake
    line.trigger()
    line.set_level(True)
    line.set_level(True)
    assert (fake.take(), fake.take(), fake.levels, len(calls), line.eventfd) == (1, 0, [True, True], 2, None)
