"""GSI routing tables in the kernel's layout."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import IrqchipRoute, MsiRoute
from kvm_ioctls._ffi import layout
from kvm_ioctls._routing import pack_routes

u32 = st.integers(0, 2**32 - 1)


@given(gsi=u32, address=st.integers(0, 2**64 - 1), data=u32, devid=st.none() | u32)
def test_msi_route_layout(gsi, address, data, devid):
    """Each part of a message route lies where the ABI wants it, the device id only with its flag."""
    raw = MsiRoute(gsi, address, data, devid).pack()

    assert len(raw) == layout()["irq_routing_entry", ""][1]
    assert struct.unpack("<8I16x", raw) == (
        gsi,
        2,
        0 if devid is None else 1,
        0,
        address & 0xFFFF_FFFF,
        address >> 32,
        data,
        devid or 0,
    )


def test_irqchip_route_layout():
    """A chip route gives chip and pin."""
    assert struct.unpack("<6I24x", IrqchipRoute(9, 2, 16).pack()) == (9, 1, 0, 0, 2, 16)


def test_table_has_count_and_entries():
    """The table begins with the number of its entries."""
    table = pack_routes([IrqchipRoute(1, 0, 1), MsiRoute(24, 0xFEE0_0000, 0x31)])

    assert struct.unpack_from("<II", table) == (2, 0)
    assert len(table) == 8 + 2 * 48


@pytest.mark.parametrize("route", [IrqchipRoute(-1, 0, 0), MsiRoute(1, 1 << 64, 0), MsiRoute(1, 0, 1 << 32)])
def test_numbers_that_do_not_fit_are_shown(route):
    """The offending route is in the message."""
    with pytest.raises(ValueError, match=type(route).__name__):
        pack_routes([route])


def test_too_many_routes_are_refused():
    """The kernel's limit is ours."""
    with pytest.raises(ValueError, match=r"^4097 GSI routes, the kernel takes at most 4096$"):
        pack_routes([IrqchipRoute(0, 0, 0)] * 4097)
