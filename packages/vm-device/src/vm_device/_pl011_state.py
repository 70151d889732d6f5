"""The saved state of a PL011 and its validation."""

from typing import Final

import attrs

from vm_device._errors import SavedStateError
from vm_device._saved_state import check_saved

FIFO_SIZE: Final = 16


@attrs.frozen
class Pl011State:
    """Saved state of a Pl011, version 1.

    `rx` holds the unread characters, oldest first, with their error bits as in UARTDR; `raw` is UARTRIS,
    `errors` UARTRSR; `ibrd`, `fbrd`, `lcr`, `cr`, `ifls`, `imsc`, `ilpr` and `dmacr` are the registers of
    those names.
    """

    ibrd: int
    fbrd: int
    lcr: int
    cr: int
    ifls: int
    imsc: int
    raw: int
    errors: int
    ilpr: int
    dmacr: int
    rx: tuple[int, ...]
    version: int = 1


# As firmware leaves it: 8N1 with FIFOs, the UART and both directions enabled.
RESET: Final = Pl011State(13, 1, 0x70, 0x301, 0x12, 0, 0, 0, 0, 0, ())
_LIMITS: Final = {
    "ibrd": 0xFFFF,
    "fbrd": 0x3F,
    "lcr": 0xFF,
    "cr": 0xFF87,
    "ifls": 0x3F,
    "imsc": 0x7FF,
    "raw": 0x7FF,
    "errors": 0x0F,
    "ilpr": 0xFF,
    "dmacr": 0x07,
}


def check_state(state: Pl011State) -> None:
    """Refuse a saved state that no PL011 can have been in."""
    check_saved(state, **_LIMITS)
    capacity = FIFO_SIZE if state.lcr & 0x10 else 1
    if len(state.rx) > capacity or any(char & ~0xFFF for char in state.rx):
        raise SavedStateError("rx", state.rx, f"at most {capacity} characters of 12 bits")
