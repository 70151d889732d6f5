"""The i8042."""

import attrs
import pytest
from hypothesis import given
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
