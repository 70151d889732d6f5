"""A machine check, to inject."""

from __future__ import annotations

from typing import ClassVar

import attrs

from kvm_ioctls._wire import Wire, u8, u64

__all__ = ("MachineCheck",)


@attrs.define(eq=False, repr=False)
class MachineCheck(Wire):
    """A machine check to inject (struct kvm_x86_mce): the bank's status, address and misc registers."""

    ABI: ClassVar[str] = "x86_mce"
    status: int = u64()
    addr: int = u64()
    misc: int = u64()
    mcg_status: int = u64()
    bank: int = u8(gap=31)
