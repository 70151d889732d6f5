"""Interrupt lines."""

import threading

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vm_device import ClosedError, EventFd, EventFdInterrupt, EventManager, Interrupt, ResampledInterrupt
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


class ResampledMachine(RuleBasedStateMachine):
    """A device with a cause, an interrupt controller's level pin behind the eventfds, and a guest."""

    def __init__(self):
        super().__init__()
        self.event, self.resampled = EventFd(), EventFd()
        self.line = ResampledInterrupt(self.event, self.resampled)
        self.cause = self.pin = self.in_service = False
        self.reasons = self.interrupts = 0  # a reason: the cause came, or was up when it was asked for

    @rule()
    def cause_comes(self):
        self.reasons += not self.cause
        self.cause = True
        self.line.set_level(True)

    @rule()
    def cause_goes(self):
        self.cause = False
        self.line.set_level(False)

    @rule()
    def controller_sees_the_eventfd(self):
        self.pin |= self.event.read() is not None

    @precondition(lambda self: self.pin and not self.in_service)
    @rule()
    def guest_is_interrupted(self):
        self.in_service = True
        self.interrupts += 1
        assert self.interrupts <= self.reasons

    @precondition(lambda self: self.in_service)
    @rule()
    def guest_ends_the_interrupt(self):
        self.in_service = self.pin = False
        self.resampled.write()

    @rule()
    def controller_asks_without_reason(self):
        self.resampled.write()

    @rule()
    def device_looks_again(self):
        asked = self.resampled.read()
        if asked:
            self.resampled.write(asked)
            self.reasons += self.cause
        self.line.resample()
        assert self.resampled.read() is None, "what was asked has been taken"

    def delivered(self):
        """Let everything that is under way arrive."""
        self.device_looks_again()
        self.controller_sees_the_eventfd()

    @rule()
    def a_cause_that_is_up_is_never_forgotten(self):
        self.delivered()
        assert self.pin or not self.cause

    @rule()
    def a_cause_that_is_gone_falls_silent(self):
        self.cause_goes()
        self.delivered()
        self.guest_ends_the_interrupt()
        self.delivered()
        assert not self.pin

    @rule()
    def each_end_finds_a_cause_that_stays(self):
        self.cause_comes()
        for _ in range(3):
            self.delivered()
            assert self.pin
            self.guest_ends_the_interrupt()

    @invariant()
    def lines_are_interrupts(self):
        line: Interrupt = self.line
        assert (line.eventfd, self.line.resamplefd) == (self.event.fd, self.resampled.fd)

    def teardown(self):
        self.event.close()
        self.resampled.close()


TestResampled = ResampledMachine.TestCase


def test_resampled_trigger_is_one_interrupt():
    """Whoever only triggers has one interrupt for each: no level is left to be raised again."""
    with EventFd() as event, EventFd() as resampled:
        line = ResampledInterrupt(event, resampled)
        line.trigger()
        assert event.read() == 1
        resampled.write()
        line.resample()
        assert (event.read(), resampled.read()) == (None, None)


def test_resampled_line_after_its_end():
    """The owner closes the eventfds; a device that is late is told."""
    with EventFd() as event, EventFd() as resampled:
        line = ResampledInterrupt(event, resampled)
    line.set_level(False)
    for late in (line.trigger, lambda: line.set_level(True), line.resample, lambda: line.eventfd):
        with pytest.raises(ClosedError):
            late()


def test_resampled_line_between_threads():
    """A device, its event loop and a controller that answers at once: no rise waits in vain."""
    with EventManager() as events, EventFd() as event, EventFd() as resampled:
        line, rounds, handled = ResampledInterrupt(event, resampled), 300, threading.Semaphore(0)
        events.add(line.resamplefd, line.resample)
        with EventManager("controller") as controller:

            def interrupt(_events):
                event.read()
                line.set_level(False)
                handled.release()
                resampled.write()

            controller.add(event, interrupt)
            controller.start()
            events.start()
            for _ in range(rounds):
                line.set_level(True)
                assert handled.acquire(timeout=60)
