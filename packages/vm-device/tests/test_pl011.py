"""The PL011 against a model of its own, a driver as Linux has one, and its data sheet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import Pl011, Pl011State, SavedStateError
from vm_device.platform import Trigger
from vm_device.testing import FakeInterrupt

DR, RSR, FR, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR = 0, 4, 0x18, 0x2C, 0x30, 0x34, 0x38, 0x3C, 0x40, 0x44
RX, TX, RT, OE = 0x10, 0x20, 0x40, 0x400
FEN, LBE = 0x10, 0x80
LEVELS = {0: 2, 1: 4, 2: 8, 3: 12, 4: 14}


class Rig:
    """A UART, what it sent, and its line."""

    def __init__(self, **options):
        self.sent = bytearray()
        self.line = FakeInterrupt()
        self.uart = Pl011(self.sent.extend, self.line, **options)

    def read(self, offset):
        return self.uart.read(offset, 4)

    def write(self, offset, value):
        self.uart.write(offset, 4, value)


def test_identity_and_reset_values():
    """What an AMBA driver looks for, and a UART that firmware has set up."""
    rig = Rig()
    ids = [rig.read(0xFE0 + 4 * i) for i in range(8)]
    assert ids == [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]
    assert [rig.read(r) for r in (FR, LCR_H, CR, IFLS, IMSC, RIS)] == [0x97, 0x70, 0x301, 0x12, 0, 0]
    assert [rig.read(r) for r in (0x001, 0x100, 0xFE1, 0xFDC)] == [0, 0, 0, 0]


def test_sending():
    """Each character leaves at once, raises TX, and is a byte however wide the access was."""
    rig = Rig()
    rig.write(IMSC, TX)
    assert not rig.line.level
    rig.write(DR, 0x141)
    assert (bytes(rig.sent), rig.line.level, rig.read(FR) & 0x80) == (b"A", True, 0x80)
    rig.write(ICR, TX)
    assert (rig.line.level, rig.read(RIS)) == (False, 0)
    rig.uart.write(DR, 1, 0x42)
    assert bytes(rig.sent) == b"AB"


@pytest.mark.parametrize(("select", "level"), LEVELS.items())
def test_receive_level(select, level):
    """RX comes with the character that reaches the level and goes with the read that leaves it."""
    rig = Rig()
    rig.write(IFLS, select << 3)
    for count in range(1, 17):
        assert rig.uart.enqueue(b"x") == 1
        assert bool(rig.read(RIS) & RX) == (count >= level), count
        assert rig.read(RIS) & RT
    assert rig.uart.enqueue(b"y") == 0
    assert rig.read(FR) & 0x50 == 0x40
    for left in range(15, -1, -1):
        assert rig.read(DR) == ord("x")
        assert bool(rig.read(RIS) & RX) == (left >= level), left
        assert bool(rig.read(RIS) & RT) == (left > 0), left
    assert rig.read(FR) & 0x50 == 0x10
    assert rig.read(DR) == 0


def test_without_fifos_there_is_one_place():
    """Turning the FIFOs off empties them; then a character is the level."""
    rig = Rig()
    assert rig.uart.enqueue(b"abc") == 3
    rig.write(LCR_H, 0x60)
    assert rig.read(FR) & 0x10
    assert rig.uart.enqueue(b"de") == 1
    assert rig.read(RIS) & RX
    assert rig.read(FR) & 0x40
    assert rig.read(DR) == ord("d")


def test_break_and_overrun():
    """A break is a zero with two errors; loopback into a full FIFO overruns."""
    rig = Rig()
    assert rig.uart.enqueue_break()
    assert rig.read(RIS) & 0x280 == 0x280
    assert rig.read(DR) == 0x500
    assert rig.read(RSR) == 0x5
    rig.write(RSR, 0)
    assert rig.read(RSR) == 0
    rig.write(CR, 0x301 | LBE)
    assert not rig.uart.enqueue_break()
    for char in range(17):
        rig.write(DR, char)
    assert rig.read(RIS) & OE
    assert [rig.read(DR) for _ in range(16)] == [*range(15), 0x800 | 15]
    assert rig.sent == b""


def test_modem_lines_in_loopback():
    """Each output reaches its input, and each change is a cause."""
    rig = Rig()
    rig.write(CR, 0x301 | LBE)
    assert rig.read(FR) & 0x107 == 0
    assert rig.read(RIS) == 0xE
    rig.write(ICR, 0x7FF)
    for bit, flag, cause in ((11, 0x001, 0x2), (10, 0x002, 0x8), (12, 0x004, 0x4), (13, 0x100, 0x1)):
        rig.write(CR, 0x301 | LBE | 1 << bit)
        assert rig.read(FR) & 0x107 == flag
        assert rig.read(RIS) == cause
        rig.write(CR, 0x301 | LBE)
        rig.write(ICR, 0x7FF)


def test_space_is_announced_without_the_lock():
    """Whoever was refused is told when the receiver is empty, or on again."""
    rig = Rig()
    told = []
    rig.uart.on_rx_space = lambda: told.append(rig.uart.enqueue(b"z"))
    assert rig.uart.enqueue(b"x" * 20) == 16
    for _ in range(16):
        assert told == []
        rig.read(DR)
    assert told == [1]
    rig.read(DR)
    rig.write(CR, 0x101)
    assert rig.uart.enqueue(b"late") == 0
    rig.write(CR, 0x301)
    assert told == [1, 1]


class Model:
    """What the data sheet says, in lists: written without looking at the device."""

    def __init__(self):
        self.fifo, self.fifos_on, self.select, self.mask, self.raw = [], True, 2, 0, set()

    @property
    def depth(self):
        return 16 if self.fifos_on else 1

    def level(self):
        return LEVELS.get(self.select, 14) if self.fifos_on else 1

    def arrive(self, data):
        for char in data[: self.depth - len(self.fifo)]:
            self.fifo.append(char)
            self.raw.add(RT)
            if len(self.fifo) >= self.level():
                self.raw.add(RX)

    def take(self):
        if not self.fifo:
            return 0
        char = self.fifo.pop(0)
        if len(self.fifo) < self.level():
            self.raw.discard(RX)
        (self.raw.add if self.fifo else self.raw.discard)(RT)
        return char


OPERATIONS = st.one_of(
    st.tuples(st.just("arrive"), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("take"), st.integers(1, 17)),
    st.tuples(st.just("send"), st.integers(0, 255)),
    st.tuples(st.just("clear"), st.sampled_from([RX, TX, RT, RX | RT, 0x7FF])),
    st.tuples(st.just("mask"), st.sampled_from([0, RX, TX, RT, RX | RT, 0x7FF])),
    st.tuples(st.just("select"), st.integers(0, 7)),
    st.tuples(st.just("fifos"), st.booleans()),
)


def apply(rig, model, operation, value):
    """Do the same to both."""
    if operation == "arrive":
        assert rig.uart.enqueue(value) == min(len(value), model.depth - len(model.fifo))
        model.arrive(value)
    elif operation == "take":
        for _ in range(value):
            assert rig.read(DR) == model.take()
    elif operation == "send":
        rig.write(DR, value)
        model.raw.add(TX)
    elif operation == "clear":
        rig.write(ICR, value)
        model.raw -= {bit for bit in model.raw if bit & value}
    elif operation == "mask":
        rig.write(IMSC, value)
        model.mask = value
    elif operation == "select":
        rig.write(IFLS, value << 3)
        model.select = value
    elif value != model.fifos_on:
        rig.write(LCR_H, 0x60 | (FEN if value else 0))
        model.fifos_on, model.fifo = value, []
        model.raw -= {RX, RT}


@given(st.lists(OPERATIONS, max_size=40))
def test_registers_as_the_model_has_them(operations):
    """FIFO, causes, line; and what was saved is what goes on."""
    rig, model = Rig(), Model()
    for operation, value in operations:
        apply(rig, model, operation, value)
        assert rig.read(RIS) == sum(model.raw)
        assert rig.read(MIS) == sum(model.raw) & model.mask
        assert rig.line.level == bool(sum(model.raw) & model.mask)
        assert bool(rig.read(FR) & 0x10) == (not model.fifo)
        assert bool(rig.read(FR) & 0x40) == (len(model.fifo) == model.depth)
        state = rig.uart.state()
        line = FakeInterrupt()
        rig.uart = Pl011.from_state(state, rig.sent.extend, line)
        assert rig.uart.state() == state
        rig.line = line


@given(st.lists(st.tuples(st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))))
def test_total_under_garbage(writes):
    """Any access is answered within its width, and the state stays one that can be restored."""
    rig = Rig()
    for offset, size, value in writes:
        rig.uart.write(offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= rig.uart.read(offset, size) < 1 << 8 * size
        rig.uart.enqueue(b"ab")
        state = rig.uart.state()
        assert Pl011.from_state(state, rig.sent.extend, FakeInterrupt()).state() == state


class EdgeDriver:
    """Handles an interrupt as Linux's amba-pl011 does; runs only when an edge has come."""

    def __init__(self, rig):
        self.rig, self.got, self.queue = rig, bytearray(), bytearray()

    def handle(self):
        while status := self.rig.read(MIS):
            self.rig.write(ICR, status & ~(RX | RT | TX))
            if status & (RX | RT):
                while not self.rig.read(FR) & 0x10:
                    self.got.append(self.rig.read(DR) & 0xFF)
            if status & TX:
                self.send()

    def send(self):
        if not self.queue:
            self.rig.write(IMSC, RX | RT)
            self.rig.write(ICR, TX)
            return
        for _ in range(min(8, len(self.queue))):
            self.rig.write(DR, self.queue.pop(0))

    def start(self, data):
        self.queue += data
        self.rig.write(IMSC, RX | RT | TX)
        self.send()


@pytest.mark.parametrize("trigger", Trigger)
@given(st.lists(st.one_of(st.binary(max_size=40), st.tuples(st.binary(max_size=40)))))
def test_a_driver_gets_and_sends_everything(trigger, script):
    """Input (bytes) and output (tuples) in any order: nothing lost, nothing twice, no wait for ever."""
    rig = Rig(trigger=trigger)
    driver = EdgeDriver(rig)
    rig.write(IMSC, RX | RT)

    def interrupted():
        return rig.line.take() if trigger is Trigger.EDGE else rig.line.level

    sent, given_ = bytearray(), bytearray()
    for item in script:
        if isinstance(item, tuple):
            driver.start(item[0])
            sent += item[0]
        while interrupted():
            driver.handle()
        rest = item if isinstance(item, bytes) else b""
        given_ += rest
        while rest:
            taken = rig.uart.enqueue(rest)
            assert taken, "the driver waits for an interrupt that never comes"
            rest = rest[taken:]
            while interrupted():
                driver.handle()
    assert driver.got == given_
    assert rig.sent == sent


def test_refusals():
    """States that no PL011 can have been in."""
    good = Rig().uart.state()
    for change in (
        {"version": 2},
        {"cr": 0x08},
        {"rx": (0x1000,)},
        {"rx": (0,) * 17},
        {"lcr": 0x60, "rx": (0, 0)},
    ):
        with pytest.raises(SavedStateError, match=next(iter(set(change) - {"lcr"}))):
            Pl011.from_state(Pl011State(**{**vars_of(good), **change}), bytearray().extend, FakeInterrupt())


def vars_of(state):
    """A state's fields."""
    return {name: getattr(state, name) for name in Pl011State.__match_args__}


def test_a_pending_cause_signals_again_after_a_restore():
    """On the new line, level or edge."""
    rig = Rig()
    rig.write(IMSC, RT)
    rig.uart.enqueue(b"x")
    for trigger in Trigger:
        line = FakeInterrupt()
        Pl011.from_state(rig.uart.state(), rig.sent.extend, line, trigger=trigger)
        assert line.edges or line.level


def test_description():
    """What the tables need."""
    node = Pl011.describe(uid=1)
    assert (node.hid, node.compatible[0], node.ranges[0].size) == ("ARMH0011", "arm,pl011", 0x1000)
    assert node.interrupts[0].trigger is Trigger.LEVEL
