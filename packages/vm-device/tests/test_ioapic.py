"""The I/O APIC against a model written from the data sheet, field by field."""

import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vm_device import IoApic, IoApicState, PinMessage, PlatformError, SavedStateError

EDGE, LEVEL, MASKED, REMOTE_IRR = 0, 1 << 15, 1 << 16, 1 << 14
WINDOW, EOI = 0x10, 0x40


class Output:
    """Remember what was sent and what each pin sends; `accepts`: a processor takes it."""

    def __init__(self):
        self.sent, self.pins, self.accepts, self.resampled = [], {}, True, []

    def set_pin(self, pin, message, masked):
        self.pins[pin] = message, masked

    def send(self, message):
        if self.accepts:
            self.sent.append((message.address, message.data))
        return self.accepts

    def resample(self, pin):
        self.resampled.append(pin)


def select(chip, index):
    """Point the window at a register."""
    chip.write(0, 4, index)


def store(chip, index, value):
    """Write a register through the window."""
    select(chip, index)
    chip.write(WINDOW, 4, value)


def load(chip, index):
    """Read a register through the window."""
    select(chip, index)
    return chip.read(WINDOW, 4)


def program(chip, pin, low, high=0):
    """As Linux does: the destination first, so that no half-written entry is live."""
    store(chip, 0x11 + 2 * pin, high)
    store(chip, 0x10 + 2 * pin, low)


@pytest.fixture
def output():
    """Where the chip's messages go."""
    return Output()


@pytest.fixture
def chip(output):
    """An I/O APIC as it comes out of reset."""
    return IoApic(output)


def test_reset_values(chip, output):
    """Id 0, version 0x20 with 24 entries, all of them masked, as a kernel finds it."""
    assert [load(chip, index) for index in range(3)] == [0, 0x0017_0020, 0]
    assert [load(chip, 0x10 + i) for i in range(48)] == [MASKED, 0] * 24
    assert (output.sent, output.pins) == ([], {})


def test_id_and_arbitration_id(chip):
    """The id has 4 bits; the arbitration id is loaded from it; the version is read-only."""
    store(chip, 0, 0xFFFF_FFFF)
    store(chip, 1, 0)
    store(chip, 2, 0)
    assert [load(chip, index) for index in range(3)] == [0x0F00_0000, 0x0017_0020, 0x0F00_0000]
    assert load(IoApic(Output(), id=9), 0) == 9 << 24
    with pytest.raises(PlatformError, match=r"^id=0x10: must be 0\.\.15"):
        IoApic(Output(), id=16)


@pytest.mark.parametrize(
    ("low", "high", "address", "data"),
    [
        (0x0031, 0, 0xFEE0_0000, 0x31),
        (0x0031, 5 << 24, 0xFEE0_5000, 0x31),
        (0x0931, 0xFF << 24, 0xFEEF_F004, 0x131),
        (0x8040, 1 << 24, 0xFEE0_1000, 0xC040),
        (0xA040, 1 << 24, 0xFEE0_1000, 0xC040),
        (0x0400, 2 << 24, 0xFEE0_2000, 0x400),
    ],
    ids=["fixed", "destination", "logical-lowest", "level", "active-low", "nmi"],
)
def test_messages(chip, output, low, high, address, data):
    """Destination, modes, trigger and vector land where the SDM has them (volume 3A, 11.11)."""
    program(chip, 3, low, high)
    assert output.pins[3] == (PinMessage(address, data), False)
    chip.set_level(3, True)
    assert output.sent == [(address, data)]


def test_edges_on_a_masked_pin_are_lost(chip, output):
    """The data sheet: neither delivered nor held pending."""
    program(chip, 4, 0x50 | MASKED)
    chip.set_level(4, True)
    chip.pulse(4)
    program(chip, 4, 0x50)
    assert output.sent == []
    chip.set_level(4, True)  # it was high all the time
    assert output.sent == []
    chip.set_level(4, False)
    chip.set_level(4, True)
    assert output.sent == [(0xFEE0_0000, 0x50)]


def test_a_level_is_sent_once_until_it_is_acknowledged(chip, output):
    """Remote IRR holds the line back; the end of the interrupt sends it again while it is asserted."""
    program(chip, 9, 0x61 | LEVEL)
    chip.set_level(9, True)
    chip.set_level(9, False)
    chip.set_level(9, True)
    assert len(output.sent) == 1
    assert load(chip, 0x10 + 18) == 0x61 | LEVEL | REMOTE_IRR
    chip.end_of_interrupt(0x60)
    assert len(output.sent) == 1
    chip.end_of_interrupt(0x61)
    assert len(output.sent) == 2
    chip.set_level(9, False)
    chip.write(EOI, 4, 0x61)  # a guest that suppresses the broadcast
    assert len(output.sent) == 2
    assert load(chip, 0x10 + 18) == 0x61 | LEVEL


def test_masking_while_handling(chip, output):
    """As a threaded handler does: mask, acknowledge, handle, unmask; the reports must go on while masked."""
    program(chip, 9, 0x61 | LEVEL)
    chip.set_level(9, True)
    store(chip, 0x10 + 18, 0x61 | LEVEL | MASKED)
    message, masked = output.pins[9]
    assert (message.vector, message.level, masked) == (0x61, True, True)
    chip.end_of_interrupt(0x61)
    assert len(output.sent) == 1
    store(chip, 0x10 + 18, 0x61 | LEVEL)
    assert len(output.sent) == 2


def test_edge_and_back_ends_an_interrupt(chip, output):
    """Linux clears a stuck remote IRR that way where it believes there is no EOI register."""
    program(chip, 9, 0x61 | LEVEL)
    chip.set_level(9, True)
    store(chip, 0x10 + 18, 0x61 | MASKED)
    assert load(chip, 0x10 + 18) == 0x61 | MASKED
    store(chip, 0x10 + 18, 0x61 | LEVEL)
    assert len(output.sent) == 2


def test_a_message_nobody_takes_is_sent_again(chip, output):
    """A level interrupt to a processor that is not there waits; it is not in service."""
    output.accepts = False
    program(chip, 9, 0x61 | LEVEL, 7 << 24)
    chip.set_level(9, True)
    assert not load(chip, 0x10 + 18) & REMOTE_IRR
    output.accepts = True
    store(chip, 0x11 + 18, 0)
    assert output.sent == [(0xFEE0_0000, 0xC061)]


def test_one_vector_on_two_pins(chip, output):
    """An acknowledgement is for every pin of its vector."""
    for pin in (5, 6):
        program(chip, pin, 0x61 | LEVEL)
        chip.set_level(pin, True)
    chip.set_level(5, False)
    chip.end_of_interrupt(0x61)
    assert len(output.sent) == 3
    assert [bool(load(chip, 0x10 + 2 * pin) & REMOTE_IRR) for pin in (5, 6)] == [False, True]


@given(
    st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1), st.integers(0, 255)
)
@example(0x10, 8, 0x61 | LEVEL, 0x10)
@example(0x10, 1, 0x61, 0x10)
@example(0x0E, 4, 0xFFFF_FFFF, 0x10)
def test_odd_accesses_change_nothing(offset, size, value, index):
    """Any access is answered; only 4-byte writes of the window change an entry."""
    output = Output()
    chip = IoApic(output)
    select(chip, index)
    before = chip.state()
    chip.write(offset, size, value & (1 << 8 * size) - 1)
    assert 0 <= chip.read(offset, size) < 1 << 32
    if (offset, size) != (WINDOW, 4):
        after = chip.state()
        assert after.entries == before.entries
        assert after.select == (value & 0xFF if offset == 0 else index)
        assert (output.sent, output.pins) == ([], {})


@pytest.mark.parametrize("pin", [-1, 24])
def test_pins_that_do_not_exist(chip, pin):
    """A device's mistake is told by number."""
    for call in (lambda: chip.set_level(pin, True), lambda: chip.pulse(pin)):
        with pytest.raises(PlatformError, match=r"^pin=(0x18|-0x1): must be 0\.\.23$"):
            call()


@dataclass
class Pin:
    """One redirection entry and its line, as the data sheet names the fields."""

    vector: int = 0
    delivery: int = 0
    logical: bool = False
    low_active: bool = False
    level: bool = False
    masked: bool = True
    destination: int = 0
    in_service: bool = False
    line: bool = False

    def register(self):
        fields = (self.vector, self.delivery << 8, self.logical << 11, self.low_active << 13)
        flags = (self.in_service << 14, self.level << 15, self.masked << 16)
        return sum(fields) + sum(flags)

    def message(self):
        address = 0xFEE0_0000 + self.destination * 0x1000 + (4 if self.logical else 0)
        return address, self.vector + self.delivery * 0x100 + (0xC000 if self.level else 0)


@dataclass
class Model:
    """24 pins; every step ends with `settle`, which sends what is due."""

    pins: list[Pin] = field(default_factory=lambda: [Pin() for _ in range(24)])
    sent: list[tuple[int, int]] = field(default_factory=list)
    accepts: bool = True

    def emit(self, pin):
        if self.accepts:
            self.sent.append(pin.message())
        return self.accepts

    def settle(self, pin):
        if pin.level and pin.line and not pin.masked and not pin.in_service:
            pin.in_service = self.emit(pin)


PINS = st.sampled_from([0, 4, 23])
VECTORS = st.sampled_from([0x31, 0x32])


class IoApicMachine(RuleBasedStateMachine):
    """Registers, lines and acknowledgements in any order, on chip and model."""

    def __init__(self):
        super().__init__()
        self.output = Output()
        self.chip = IoApic(self.output)
        self.model = Model()

    @rule(
        number=PINS,
        vector=VECTORS,
        delivery=st.integers(0, 7),
        flags=st.tuples(*[st.booleans()] * 4),
        noise=st.sampled_from([0, 0xFFFE_5000]),
    )
    def write_low(self, number, vector, delivery, flags, noise):
        pin = self.model.pins[number]
        pin.vector, pin.delivery = vector, delivery
        pin.logical, pin.low_active, pin.level, pin.masked = flags
        # Reserved and read-only bits are set or clear at random: they must not matter.
        value = pin.register() & ~REMOTE_IRR | noise & ~0xA000 | noise & REMOTE_IRR
        if not pin.level:
            pin.in_service = False
        store(self.chip, 0x10 + 2 * number, value)
        self.model.settle(pin)

    @rule(number=PINS, destination=st.integers(0, 255), noise=st.integers(0, 0xFF_FFFF))
    def write_high(self, number, destination, noise):
        pin = self.model.pins[number]
        pin.destination = destination
        store(self.chip, 0x11 + 2 * number, destination << 24 | noise)
        self.model.settle(pin)

    @rule(number=PINS, level=st.booleans())
    def drive(self, number, level):
        pin = self.model.pins[number]
        rises = level and not pin.line
        pin.line = level
        self.chip.set_level(number, level)
        if not pin.level and rises and not pin.masked:
            self.model.emit(pin)
        self.model.settle(pin)

    @rule(number=PINS)
    def pulse(self, number):
        pin = self.model.pins[number]
        self.chip.pulse(number)
        if not pin.masked:
            self.model.emit(pin)

    @rule(vector=VECTORS, by_register=st.booleans())
    def acknowledge(self, vector, by_register):
        if by_register:
            self.chip.write(EOI, 4, vector)
        else:
            self.chip.end_of_interrupt(vector)
        level = [n for n, pin in enumerate(self.model.pins) if pin.level and pin.vector == vector]
        assert self.output.resampled == level, "whoever raised a pin past the chip is asked, masked or not"
        self.output.resampled.clear()
        for pin in self.model.pins:
            if pin.in_service and pin.vector == vector:
                pin.in_service = False
                self.model.settle(pin)

    @rule(accepts=st.booleans())
    def processors(self, accepts):
        self.output.accepts = self.model.accepts = accepts

    @rule()
    def save_and_restore(self):
        state = self.chip.state()
        sent, accepts = self.output.sent, self.output.accepts
        self.output = Output()
        self.chip = IoApic.from_state(state, self.output)
        assert self.chip.state() == state
        assert self.output.sent == []
        self.output.sent, self.output.accepts = sent, accepts

    @precondition(lambda self: self.output.sent)
    @invariant()
    def sent_alike(self):
        assert self.output.sent == self.model.sent

    @invariant()
    def registers_alike(self):
        for number in (0, 4, 23):
            pin = self.model.pins[number]
            assert load(self.chip, 0x10 + 2 * number) == pin.register()
            assert load(self.chip, 0x11 + 2 * number) == pin.destination << 24

    @invariant()
    def output_knows_what_pins_send(self):
        for number, pin in enumerate(self.model.pins):
            message, masked = self.output.pins.get(number, (PinMessage(0xFEE0_0000, 0), True))
            assert ((message.address, message.data), masked) == (pin.message(), pin.masked)


TestIoApic = IoApicMachine.TestCase


def test_lines_and_acknowledgements_from_many_threads(output):
    """Vcpus acknowledge while devices drive their lines: every assertion is sent, none twice at a time."""
    chip = IoApic(output)
    rounds = 100
    program(chip, 1, 0x41 | LEVEL)
    program(chip, 2, 0x42 | LEVEL)
    done = threading.Event()

    def processor():
        seen = 0
        while not done.is_set() or seen < len(output.sent):
            time.sleep(0)
            for _, data in output.sent[seen:]:
                seen += 1
                chip.end_of_interrupt(data & 0xFF)

    def device(pin):
        for _ in range(rounds):
            chip.set_level(pin, True)
            wait_for(pin, REMOTE_IRR)
            chip.set_level(pin, False)
            wait_for(pin, 0)

    def wait_for(pin, wanted):
        while chip.state().entries[pin] & REMOTE_IRR != wanted:
            time.sleep(0)

    threads = [threading.Thread(target=device, args=(pin,)) for pin in (1, 2)]
    processors = [threading.Thread(target=processor)]
    for thread in (*threads, *processors):
        thread.start()
    for thread in threads:
        thread.join(30)
    done.set()
    processors[0].join(30)
    assert len(output.sent) >= 2 * rounds
    assert not any(entry & REMOTE_IRR for entry in chip.state().entries)


GOOD = (MASKED,) * 24


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (IoApicState(0, 0, GOOD, 0, version=2), "version"),
        (IoApicState(16, 0, GOOD, 0), "id"),
        (IoApicState(0, 256, GOOD, 0), "select"),
        (IoApicState(0, 0, GOOD, 1 << 24), "asserted"),
        (IoApicState(0, 0, GOOD, -1), "asserted"),
        (IoApicState(0, 0, GOOD[1:], 0), "entries"),
        (IoApicState(0, 0, (*GOOD[1:], -1), 0), "entry"),
        (IoApicState(0, 0, (*GOOD[1:], 1 << 20), 0), "entry"),
        (IoApicState(0, 0, (*GOOD[1:], REMOTE_IRR), 0), "entry"),
        (IoApicState(0, 0, (*GOOD[1:], 1 << 64), 0), "entry"),
    ],
)
def test_impossible_states_are_refused(state, said, output):
    """A saved state is input: the field is named, and the output is told nothing."""
    with pytest.raises(SavedStateError, match=rf"^saved state: {said}="):
        IoApic.from_state(state, output)
    assert output.pins == {}


def test_where_it_is():
    """One page at the address every kernel knows, in no DSDT."""
    node = IoApic.describe()
    assert (str(node.ranges[0]), node.hid) == ("mmio 0xfec00000..0xfec00fff", None)
