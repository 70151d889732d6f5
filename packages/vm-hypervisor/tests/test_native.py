"""What no device claims is answered without the VMM, and nothing else is."""

from hypothesis import example, given
from hypothesis import strategies as st
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import unclaimed_ports

PORTS = 1 << 16


@st.composite
def port_ranges(draw):
    """A range of ports, small ones and those at the ends most of the time."""
    base = draw(st.one_of(st.integers(0, 64), st.integers(0, PORTS - 1), st.integers(PORTS - 8, PORTS - 1)))
    size = draw(st.integers(1, min(64, PORTS - base)))
    return AddressRange(AddressSpace.PIO, base, size)


@given(st.lists(port_ranges(), max_size=12))
@example([])
@example([AddressRange(AddressSpace.PIO, 0, PORTS)])
@example([AddressRange(AddressSpace.PIO, 0, 1), AddressRange(AddressSpace.PIO, PORTS - 1, 1)])
def test_against_a_bitmap(claimed):
    """Each port is answered natively exactly when no device has it, by one range only."""
    taken = bytearray(PORTS)
    for where in claimed:
        taken[where.base : where.base + where.size] = b"\1" * where.size
    for answer in unclaimed_ports(claimed):
        where = answer.range
        assert not any(taken[where.base : where.last + 1]), "claimed, or answered twice"
        taken[where.base : where.last + 1] = b"\2" * where.size
        assert (where.space, answer.read, answer.drop_writes) == (AddressSpace.PIO, (1 << 64) - 1, True)
    assert 0 not in taken, "a free port is left to the VMM"


def test_mmio_is_not_its_business():
    """An MMIO range takes no port away."""
    (answer,) = unclaimed_ports([AddressRange(AddressSpace.MMIO, 0x10, 0x10)])
    assert answer.range == AddressRange(AddressSpace.PIO, 0, PORTS)
