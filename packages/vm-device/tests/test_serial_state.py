"""Saved states of the UART."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import SavedStateError, Serial16550, SerialState
from vm_device.testing import FakeInterrupt

BYTES = st.integers(0, 255)


@given(
    st.builds(
        SerialState,
        divisor=st.integers(0, 0xFFFF),
        ier=st.integers(0, 15),
        fcr=st.sampled_from([0x01, 0x41, 0x81, 0xC1]),
        lcr=BYTES,
        mcr=st.integers(0, 31),
        scr=BYTES,
        lsr_errors=st.sampled_from([0, 2, 0x10]),
        msr_delta=st.integers(0, 15),
        thre_pending=st.booleans(),
        rx=st.lists(BYTES, max_size=16).map(tuple),
    )
)
def test_round_trip(state):
    """State to object to state is the identity, and a pending cause interrupts on the new line."""
    uart = Serial16550.from_state(state, bytes, line := FakeInterrupt())
    assert uart.state() == state
    assert bool(line.edges) == (bool(state.mcr & 8) and not uart.read(2, 1) & 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("ier", 0x10),
        ("mcr", 0x20),
        ("divisor", 1 << 16),
        ("rx", (1, 2)),
        ("rx", (0x100,)),
        ("lcr", -1),
    ],
)
def test_impossible_states_are_refused(field, value):
    """A saved state is input: each field is checked and named."""
    uart = Serial16550(bytes, line := FakeInterrupt())
    with pytest.raises(SavedStateError, match=f"saved state: {field}="):
        Serial16550.from_state(attrs.evolve(uart.state(), **{field: value}), bytes, line)
