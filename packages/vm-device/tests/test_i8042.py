"""The i8042."""

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import I8042, I8042State, SavedStateError

OPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)), max_size=30
)


def test_reset():
    """0xFE resets, and so does pulling the reset line low through the output port; other pulses do not."""
    resets = []
    device = I8042(lambda: resets.append(1))
    device.write(4, 1, 0xFE)
    assert len(resets) == 1
    device.write(4, 1, 0xD1)
    device.write(0, 1, 0xFE)
    assert len(resets) == 2
    for command, data in ((0xFF, 0xFE), (0xD1, 0xDF), (0x60, 0xFE), (0xAE, 0xFE)):
        device.write(4, 1, command)
        device.write(0, 1, data)
    assert len(resets) == 2


def test_polling_drivers_go_on_at_once():
    """Status says input empty always and output full only when a command has answered."""
    device = I8042(bool)
    assert device.read(4, 1) == 0x14
    for command, answer in ((0xAA, 0x55), (0x20, 0x30), (0xAB, 0x01), (0xA9, 0x01), (0xD0, 0x03)):
        device.write(4, 1, command)
        assert device.read(4, 1) == 0x15
        assert device.read(0, 1) == answer
        assert device.read(4, 1) == 0x14
    device.write(4, 1, 0x60)
    device.write(0, 1, 0x74)
    device.write(4, 1, 0x20)
    assert device.read(0, 1) == 0x74


def test_port_b_lets_delay_loops_end():
    """Port 0x61 shows timer 2 high and a toggling refresh bit."""
    device = I8042(bool)
    device.write(1, 1, 0xFF)
    first, second = device.read(1, 1), device.read(1, 1)
    assert first ^ second == 0x10
    assert first & second & 0x2F == 0x2F
    assert device.read(2, 1) == 0xFF


@given(OPS)
def test_total_and_state_round_trip(operations):
    """Any traffic gives values within the size, bounded memory, and a state that survives."""
    device = I8042(bool)
    for offset, size, value in operations:
        device.write(offset, size, value & ((1 << 8 * size) - 1))
        assert 0 <= device.read(offset, size) < 1 << 8 * size
        device.write(offset, size, value & ((1 << 8 * size) - 1))
        state = device.state()
        assert I8042.from_state(state, bool).state() == state


@pytest.mark.parametrize(
    ("field", "value"), [("version", 0), ("config", 256), ("output", (300,)), ("output", (0,) * 17)]
)
def test_impossible_states_are_refused(field, value):
    """A saved state is input."""
    with pytest.raises(SavedStateError, match=f"{field}="):
        I8042.from_state(attrs.evolve(I8042State(0, 0, 0, ()), **{field: value}), bool)


def test_description_has_no_hid():
    """ACPI must not promise a keyboard controller."""
    node = I8042.describe()
    assert (node.hid, node.ranges[0].base, node.ranges[0].last) == (None, 0x60, 0x64)


def test_an_unread_answer_is_replaced():
    """The output buffer is one byte: the latest command's answer is what a driver reads."""
    device = I8042(bool)
    device.write(4, 1, 0x20)
    device.write(4, 1, 0xAA)
    assert device.read(0, 1) == 0x55
    assert device.read(4, 1) == 0x14


ANSWERS = {0xAA: 0x55, 0xAB: 0x01, 0xA9: 0x01, 0xD0: 0x03}
PULSES = range(0xF0, 0x100)
COMMANDS = st.sampled_from([*ANSWERS, 0x20, 0x60, 0xD1, 0xAE, 0xFE, 0xFF])
BYTES = st.one_of(
    st.tuples(st.just("write"), st.just(4), COMMANDS),
    st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
    st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
)


class History:
    """What an 8042 would say, found by looking back at all that was done to it; it keeps no registers."""

    def __init__(self):
        self.done = []

    def _since(self, *wanted):
        """What happened after the last of (kind, port) events, and that event's byte; or all, and None."""
        for at in range(len(self.done) - 1, -1, -1):
            if self.done[at][:2] in wanted:
                return self.done[at + 1 :], self.done[at][2]
        return self.done, None

    def _config(self):
        """The byte that followed the last command 0x60 that a byte followed."""
        command, found = None, 0x30
        for kind, port, value in self.done:
            if (kind, port) == ("write", 4):
                command = value
            elif (kind, port) == ("write", 0):
                found = value if command == 0x60 else found
                command = None
        return found

    def _answer(self):
        """What waits at port 0x60: of the last command that answers, unless it was read."""
        for at in range(len(self.done) - 1, -1, -1):
            kind, port, value = self.done[at]
            if (kind, port) == ("read", 0):
                return None
            if (kind, port) == ("write", 4) and value in {*ANSWERS, 0x20}:
                before = History()
                before.done = self.done[:at]
                return ANSWERS.get(value, before._config())
        return None

    def read(self, port):
        """The byte there."""
        toggles = self.done.count(("read", 1, 0))
        low = (self._since(("write", 1))[1] or 0) & 0x0F
        found = {0: self._answer() or 0, 1: 0x20 | low | (0 if toggles % 2 else 0x10)}
        found[4] = 0x14 | (self._answer() is not None)
        self.done.append(("read", port, 0))
        return found.get(port, 0xFF)

    def write(self, port, value):
        """Whether the byte resets the machine."""
        after, command = self._since(("write", 4))
        was_command = command == 0xD1 and not any(event[:2] == ("write", 0) for event in after)
        self.done.append(("write", port, value))
        if port == 4:
            return value in PULSES and value % 2 == 0
        return port == 0 and was_command and value % 2 == 0


@given(st.lists(BYTES, max_size=40))
@example([("write", 4, 0xD1), ("write", 4, 0xFF), ("write", 0, 0xFE)])
@example([("write", 4, 0x60), ("write", 4, 0xF1), ("write", 0, 0x11), ("write", 4, 0x20), ("read", 0, 0)])
def test_as_its_history_says(events):
    """Every byte read and every reset, after a restore at each step too."""
    resets, history = [], History()
    device = I8042(lambda: resets.append(1))
    for kind, port, value in events:
        before = len(resets)
        if kind == "write":
            device.write(port, 1, value)
            assert len(resets) - before == history.write(port, value)
        else:
            assert device.read(port, 1) == history.read(port)
        device = I8042.from_state(device.state(), lambda: resets.append(1))


@given(OPS)
def test_wide_accesses_are_bytes(operations):
    """Of consecutive ports, the lowest first."""
    wide, narrow = I8042(bool), I8042(bool)
    for offset, size, value in operations:
        value &= (1 << 8 * size) - 1
        wide.write(offset, size, value)
        for at, byte in enumerate(value.to_bytes(size, "little")):
            narrow.write(offset + at, 1, byte)
        read = bytes(narrow.read(offset + at, 1) for at in range(size))
        assert wide.read(offset, size) == int.from_bytes(read, "little")
    assert wide.state() == narrow.state()
