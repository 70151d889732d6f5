"""The PL031 with a clock and an event loop of the test's own."""

import heapq
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import EventManager, Pl031, Pl031State, SavedStateError
from vm_device.testing import FakeInterrupt

DR, MR, LR, CR, IMSC, RIS, MIS, ICR = range(0, 0x20, 4)
WORD = 0xFFFF_FFFF


class World:
    """A wall clock, a loop that goes with it, and a device."""

    def __init__(self, now=1_700_000_000.25):
        self.now = now
        self.timers = []
        self.most = 0
        self.line = FakeInterrupt()
        self.rtc = Pl031(self.line, clock=lambda: self.now, call_later=self.call_later)

    def call_later(self, delay, callback):
        assert delay >= 0
        heapq.heappush(self.timers, (self.now + delay, id(callback), callback))
        self.most = max(self.most, len(self.timers))

    def advance(self, seconds):
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            due, _, callback = heapq.heappop(self.timers)
            self.now = max(self.now, due)
            callback()
        self.now = end

    def read(self, offset):
        return self.rtc.read(offset, 4)

    def write(self, offset, value):
        self.rtc.write(offset, 4, value)


def test_identity_and_reset():
    """What an AMBA driver looks for, and the host's time."""
    world = World()
    ids = [world.read(0xFE0 + 4 * i) for i in range(8)]
    assert ids == [0x31, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]
    assert [world.read(r) for r in (DR, MR, LR, CR, IMSC, RIS, MIS, 0x20)] == [
        1_700_000_000,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
    ]


@given(st.integers(0, WORD), st.integers(0, WORD), st.floats(0, 2**40))
def test_setting_and_running(host, wanted, later):
    """From what was loaded on, a second a second, in 32 bits."""
    world = World(float(host))
    world.write(LR, wanted)
    assert (world.read(DR), world.read(LR)) == (wanted, wanted)
    world.now += later
    assert world.read(DR) == (wanted + int(later + host) - host) & WORD


@pytest.mark.parametrize("after", [0, 1, 59, 60, 61, 3600, 200_000])
def test_the_alarm_comes_in_time(after):
    """Not a second early, by timers alone; it stays until it is cleared, and does not come again."""
    world = World()
    world.write(IMSC, 1)
    world.write(MR, 1_700_000_000 + after)
    if after:
        world.advance(after - 0.5)
        assert not world.line.level
        world.advance(0.5)
    assert world.line.level
    assert (world.read(RIS), world.read(MIS)) == (1, 1)
    world.write(ICR, 1)
    assert not world.line.level
    world.advance(10)
    assert (world.line.level, world.read(RIS)) == (False, 0)


def test_masked_it_is_only_a_flag():
    """Enabling it later raises the line."""
    world = World()
    world.write(MR, 1_700_000_005)
    world.advance(6)
    assert (world.read(RIS), world.read(MIS), world.line.level) == (1, 0, False)
    world.write(IMSC, 1)
    assert world.line.level


@pytest.mark.parametrize("jump", [5.0, 500.0])
def test_a_clock_that_jumps(jump):
    """Over the alarm: it is raised. Back: nothing."""
    world = World()
    world.write(MR, 1_700_000_003)
    world.now -= 1
    assert world.read(RIS) == 0
    world.now += jump
    assert world.read(RIS) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from([MR, LR, IMSC, ICR]), st.integers(0, WORD), st.floats(0, 5)), max_size=60
    )
)
@example([(IMSC, 1, 0.0), *((MR, 1_700_000_000 + 600 - n, 0.0) for n in range(500))])
def test_total_and_frugal(writes):
    """Whatever is written: few timers wait, and the state is one that can be restored."""
    world = World()
    for offset, value, wait in writes:
        world.write(offset, value)
        world.advance(wait)
        state = world.rtc.state()
        again = Pl031.from_state(state, FakeInterrupt(), clock=lambda: world.now)
        assert again.state() == state
        assert again.read(DR, 4) == world.read(DR)
    assert world.most <= 62


def test_a_real_loop():
    """With an EventManager, and the host's clock."""
    raised = threading.Event()
    with EventManager("rtc") as loop:
        loop.start()
        rtc = Pl031(FakeInterrupt(raised.set), call_later=loop.call_later)
        rtc.write(IMSC, 4, 1)
        rtc.write(MR, 4, rtc.read(DR, 4) + 1)
        assert raised.wait(30)


def test_refusals():
    """Impossible states."""
    for state in (Pl031State(0, 0, 0, False, False, version=2), Pl031State(1 << 32, 0, 0, False, False)):
        with pytest.raises(SavedStateError):
            Pl031.from_state(state, FakeInterrupt())


def test_description():
    """A device tree node; ACPI knows no PL031."""
    node = Pl031.describe()
    assert (node.hid, node.compatible, node.interrupts[0].gsi) == (None, ("arm,pl031", "arm,primecell"), 34)
