"""The saved state of a UART and its validation."""

import attrs

from vm_device._errors import SavedStateError
from vm_device._saved_state import check_saved
from vm_device._serial import FIFO_SIZE


@attrs.frozen
class SerialState:
    """Saved state of a Serial16550, version 1.

    `rx` holds the unread characters, oldest first, each with its line-status error bits shifted left by 8.
    `divisor` is DLM and DLL; `ier`, `fcr`, `lcr`, `mcr` and `scr` are the registers of those names;
    `lsr_errors` and `msr_delta` the bits of LSR and MSR that a read clears; `thre_pending` whether an empty
    transmitter is to interrupt.
    """

    divisor: int
    ier: int
    fcr: int
    lcr: int
    mcr: int
    scr: int
    lsr_errors: int
    msr_delta: int
    thre_pending: bool
    rx: tuple[int, ...]
    version: int = 1


def check_state(state: SerialState) -> None:
    """Refuse a saved state that no UART can have been in."""
    check_saved(
        state,
        divisor=0xFFFF,
        ier=0x0F,
        fcr=0xFF,
        lcr=0xFF,
        mcr=0x1F,
        scr=0xFF,
        lsr_errors=0x1E,
        msr_delta=0x0F,
    )
    capacity = FIFO_SIZE if state.fcr & 0x01 else 1
    if len(state.rx) > capacity or any(char & ~0x1CFF for char in state.rx):
        raise SavedStateError("rx", state.rx, f"at most {capacity} characters with error bits 0x1c00")
