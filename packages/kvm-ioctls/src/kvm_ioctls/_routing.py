"""What vm ioctls take: GSI routes and messages."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeAlias

import attrs

from kvm_ioctls._wire import packed

__all__ = ("IrqRoute", "IrqchipRoute", "MsiRoute", "pack_routes")

_IRQCHIP, _MSI = 1, 2
_DEVID_VALID = 1
MAX_ROUTES = 4096


@attrs.frozen
class IrqchipRoute:
    """`gsi` to a `pin` of an in-kernel `irqchip`: 0 PIC master, 1 PIC slave, 2 I/O APIC; each 32 bits."""

    gsi: int
    irqchip: int
    pin: int

    def pack(self) -> bytes:
        """Return the struct kvm_irq_routing_entry.

        Raises:
            ValueError: A number does not fit its field.
        """
        return bytes(packed(f"{self}", "<IIIIII24x", self.gsi, _IRQCHIP, 0, 0, self.irqchip, self.pin))


@attrs.frozen
class MsiRoute:
    """`gsi` to a message: 64-bit `address`, 32-bit `data`, `devid` where the host's chip wants one."""

    gsi: int
    address: int
    data: int
    devid: int | None = None

    def pack(self) -> bytes:
        """Return the struct kvm_irq_routing_entry.

        Raises:
            ValueError: A number does not fit its field.
        """
        flags = 0 if self.devid is None else _DEVID_VALID
        low, high = self.address & 0xFFFF_FFFF, self.address >> 32
        values = (self.gsi, _MSI, flags, 0, low, high, self.data, self.devid or 0)
        return bytes(packed(f"{self}", "<8I16x", *values))


IrqRoute: TypeAlias = IrqchipRoute | MsiRoute
"""One entry of the table that `VmFd.set_gsi_routing` takes."""


def pack_routes(routes: Iterable[IrqRoute]) -> bytearray:
    """Return a struct kvm_irq_routing with its entries.

    Raises:
        ValueError: A number does not fit its field, or there are more than 4096 routes.
    """
    entries = [route.pack() for route in routes]
    if len(entries) > MAX_ROUTES:
        raise ValueError(f"{len(entries)} GSI routes, the kernel takes at most {MAX_ROUTES}")
    return bytearray(b"".join([struct.pack("<II", len(entries), 0), *entries]))
