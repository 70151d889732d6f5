"""ACPI sleep and reset registers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import AcpiRegisters, AcpiRegistersState, PlatformError, SavedStateError


def make(**kwargs):
    """Registers and the calls they made."""
    calls = []
    return AcpiRegisters(lambda: calls.append("reset"), lambda typ: calls.append(typ), **kwargs), calls


@given(st.integers(0, 255))
def test_sleep_control(value):
    """SLP_EN (bit 5) sleeps with SLP_TYP (bits 2-4); it reads back without SLP_EN."""
    registers, calls = make()
    registers.write(0, 1, value)
    assert calls == ([value >> 2 & 7] if value & 0x20 else [])
    assert registers.read(0, 1) == value & 0x1C


def test_wake_status_is_cleared_by_writing_one():
    """WAK_STS is set by the machine and write-1-to-clear."""
    registers, _ = make()
    assert registers.read(1, 1) == 0
    registers.wake()
    registers.write(1, 1, 0x7F)
    assert registers.read(1, 1) == 0x80
    assert registers.read(0, 4) == 0x8000
    registers.write(1, 1, 0x80)
    assert registers.read(1, 1) == 0


@given(st.integers(0, 255), st.integers(0, 255))
def test_reset(reset_value, written):
    """Only the reset value resets."""
    registers, calls = make(reset_value=reset_value)
    registers.write(2, 1, written)
    assert calls == (["reset"] if written == reset_value else [])
    with pytest.raises(PlatformError, match="reset_value=0x100"):
        make(reset_value=256)


@given(st.integers(0, 7), st.booleans())
def test_state_round_trip(sleep_type, wake):
    """State to object to state is the identity."""
    state = AcpiRegistersState(sleep_type, wake)
    assert AcpiRegisters.from_state(state, bool, bool).state() == state


def test_impossible_states_are_refused():
    """A saved state is input."""
    for state, field in (
        (AcpiRegistersState(8, False), "sleep_type"),
        (AcpiRegistersState(0, False, 9), "version"),
    ):
        with pytest.raises(SavedStateError, match=f"{field}="):
            AcpiRegisters.from_state(state, bool, bool)


def test_platform_registers():
    """The three ports are what the FADT wants, and lie in the described range."""
    registers, _ = make(reset_value=7)
    control, status, reset = registers.registers()
    assert (control.base, status.base, reset.range.base, reset.value) == (0x600, 0x601, 0x602, 7)
    assert AcpiRegisters.describe().ranges[0].contains(0x600, 3)


def test_reset_vector_writes_the_reset_register():
    """A jump to F000:FFF0 finds `mov dx, 0x602; mov al, 7; out dx, al; hlt; jmp $-1`."""
    registers, _ = make(reset_value=7)
    assert registers.reset_vector() == (0xFFFF0, bytes.fromhex("ba0206 b007 ee f4 ebfd"))
