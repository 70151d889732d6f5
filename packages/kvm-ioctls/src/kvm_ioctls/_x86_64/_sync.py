"""The state that travels in the run page, without an ioctl (KVM_CAP_SYNC_REGS)."""

from __future__ import annotations

from enum import IntFlag

import attrs

from kvm_ioctls._x86_64._state import Regs, Sregs
from kvm_ioctls._x86_64._state_more import VcpuEvents

__all__ = ("SyncFields", "SyncRegs")


class SyncFields(IntFlag):
    """Parts of the state that travel in the run page."""

    NONE = 0
    REGS = 1
    SREGS = 2
    EVENTS = 4


@attrs.frozen
class SyncRegs:
    """The state that the run page carried at the last exit (struct kvm_sync_regs)."""

    regs: Regs
    sregs: Sregs
    events: VcpuEvents
