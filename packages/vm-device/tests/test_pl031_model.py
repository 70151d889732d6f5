"""The PL031 against a model that counts every second (DDI 0224, sections 2.1 and 3.3)."""

import heapq

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from vm_device import Pl031
from vm_device.testing import FakeInterrupt

DR, MR, LR, CR, IMSC, RIS, MIS, ICR = range(0, 0x20, 4)
WORD = 0xFFFF_FFFF
START = 1_700_000_000
IDENTITY = {0xFE0: 0x31, 0xFE4: 0x10, 0xFE8: 0x04, 0xFEC: 0, 0xFF0: 0x0D, 0xFF4: 0xF0, 0xFF8: 5, 0xFFC: 0xB1}


class Model:
    """The data sheet's block diagram: a counter, a comparator behind it, a flag and a mask."""

    def __init__(self):
        self.counter, self.match, self.load = START, 0, 0
        self.raw, self.enabled = False, False
        self.since = 0  # ticks since the flag and mask have been what they are

    def tick(self):
        """One edge of CLK1HZ."""
        self.counter = (self.counter + 1) & WORD
        self.since += 1
        self._compare()

    def _compare(self):
        if self.counter == self.match and not self.raw:
            self.raw, self.since = True, 0

    def write(self, offset, value):
        """One APB write; what is read-only, reserved or the always set RTCCR changes nothing."""
        if offset == MR:
            self.match = value
            self._compare()
        elif offset == LR:
            self.load = self.counter = value
            self._compare()
        elif offset == IMSC:
            self.enabled = bool(value % 2)
        elif offset == ICR and value % 2:
            self.raw = False

    @property
    def registers(self):
        """What all of them read as."""
        return {
            DR: self.counter,
            MR: self.match,
            LR: self.load,
            CR: 1,
            IMSC: int(self.enabled),
            RIS: int(self.raw),
            MIS: int(self.raw and self.enabled),
            ICR: 0,
            0x20: 0,
            0xFDC: 0,
            **IDENTITY,
        }


class ClockMachine(RuleBasedStateMachine):
    """Registers, time and restores in any order."""

    def __init__(self):
        super().__init__()
        self.now = float(START)
        self.timers = []
        self.line = FakeInterrupt()
        self.device = Pl031(self.line, clock=lambda: self.now, call_later=self._call_later)
        self.model = Model()

    def _call_later(self, delay, callback):
        heapq.heappush(self.timers, (self.now + delay, id(callback), callback))

    def _both(self, offset, value):
        self.device.write(offset, 4, value)
        self.model.write(offset, value)

    @rule(register=st.sampled_from([MR, LR]), distance=st.integers(-3, 130))
    def near(self, register, distance):
        """An alarm soon, or the clock put shortly before or on one."""
        other = self.model.counter if register == MR else self.model.match
        self._both(register, (other + (distance if register == MR else -distance)) & WORD)

    @rule(register=st.sampled_from([MR, LR]), value=st.sampled_from([0, 1, 1 << 31, WORD - 2, WORD]))
    def far(self, register, value):
        """The ends of the counter."""
        self._both(register, value)

    @rule(register=st.sampled_from([IMSC, ICR]), value=st.integers(0, 3))
    def control(self, register, value):
        """Mask and clear."""
        self._both(register, value)

    @rule(register=st.sampled_from([DR, CR, RIS, MIS, 0x20, 0xFE0]), value=st.integers(0, WORD))
    def nothing(self, register, value):
        """Not to be written."""
        self._both(register, value)

    @rule(quarters=st.integers(0, 20) | st.integers(0, 1000))
    def sleep(self, quarters):
        """Time passes and nobody looks: the alarm comes by itself, at most a second late."""
        end = self.now + quarters / 4
        for _ in range(int(end) - int(self.now)):
            self.model.tick()
        while self.timers and self.timers[0][0] <= end:
            due, _, callback = heapq.heappop(self.timers)
            self.now = max(self.now, due)
            callback()
        self.now = end
        wanted = self.model.raw and self.model.enabled
        assert self.line.level == wanted or (wanted and self.model.since == 0)

    @rule()
    def restore(self):
        """A machine that goes on elsewhere, on another line."""
        state, self.line = self.device.state(), FakeInterrupt()
        self.device = Pl031.from_state(state, self.line, clock=lambda: self.now, call_later=self._call_later)
        assert self.device.state() == state

    @rule(offset=st.integers(0, 0xFFF), size=st.sampled_from([1, 2, 4, 8]))
    def narrow(self, offset, size):
        """The low bytes, of offsets that no register has too."""
        expected = self.model.registers.get(offset, 0)
        assert self.device.read(offset, size) == expected & (1 << 8 * size) - 1

    @invariant()
    def same_registers(self):
        """And with them seen, the line."""
        read = {offset: self.device.read(offset, 4) for offset in self.model.registers}
        assert read == self.model.registers
        assert self.line.level == (self.model.raw and self.model.enabled)


TestClockMachine = ClockMachine.TestCase
