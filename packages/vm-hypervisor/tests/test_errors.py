"""One tree of errors, whose messages and fields name what went wrong."""

from vm_hypervisor import (
    HypervisorError,
    HypervisorUnavailableError,
    RouteError,
    SlotError,
    VcpuStateError,
)


def test_one_root():
    """Catching the root catches every error this package raises itself."""
    for kind in (HypervisorUnavailableError, RouteError, SlotError, VcpuStateError):
        assert issubclass(kind, HypervisorError)


def test_slot_error():
    """The slot, where it lies and why, in the message and as fields."""
    error = SlotError(3, 0x1000, 0x2000, "overlaps")
    assert str(error) == "memory slot 3 (guest 0x1000, 0x2000 bytes): overlaps"
    assert (error.slot, error.base, error.size) == (3, 0x1000, 0x2000)
