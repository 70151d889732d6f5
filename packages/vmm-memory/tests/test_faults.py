"""The sentences that explain a refused access."""

import pytest
from vmm_memory import InvalidGuestAddressError, PartialBufferError
from vmm_memory._faults import number_error, unmapped_error

UNMAPPED, PARTIAL = InvalidGuestAddressError, PartialBufferError


@pytest.mark.parametrize(
    ("mapped", "addr", "kind", "message"),
    [
        ([], 0x10, UNMAPPED, "0x10 is not mapped (the map is empty)"),
        ([(0, 0x10)], 0x10, UNMAPPED, "0x10 is not mapped (highest mapped byte: 0xf)"),
        (
            [(0, 0x10), (0x10, 8)],
            8,
            PartialBufferError,
            "only the first 0x10 bytes are mapped; none was moved",
        ),
        (
            [(0, 0x10), (0x20, 8)],
            8,
            PartialBufferError,
            "only the first 0x8 bytes are mapped; none was moved",
        ),
    ],
)
def test_how_far_memory_reaches(mapped, addr, kind, message):
    """Adjacent regions count as one stretch, holes end it."""
    error = unmapped_error(mapped, addr, 0x100)
    assert type(error) is kind
    assert str(error) == f"guest range {addr:#x} + 0x100: {message}"
    assert (error.address, error.size) == (addr, 0x100)


@pytest.mark.parametrize(
    ("addr", "size", "value", "kind"),
    [
        (-1, 4, 0, InvalidGuestAddressError),
        (1 << 64, 4, 0, InvalidGuestAddressError),
        (0, 1 << 64, 0, InvalidGuestAddressError),
        (0, -1, 0, ValueError),
        (0, 8, 1 << 64, ValueError),
    ],
)
def test_numbers_beyond_c(addr, size, value, kind):
    """Addresses are the guest's fault, sizes and values the caller's."""
    assert type(number_error(addr, size, value)) is kind
