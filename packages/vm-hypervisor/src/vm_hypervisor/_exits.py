"""Why a vCPU came back: neutral exits, the same for every hypervisor.

Slotted and frozen, fit for `match`. A VMM that hands its `VmOps` to `Vcpu.run` never sees the
four I/O exits: the backend answers them without building an object.
"""

import enum
from typing import TypeAlias

import attrs


class SystemEventKind(enum.Enum):
    """What a guest asked of the machine as a whole (KVM_EXIT_SYSTEM_EVENT and its peers)."""

    SHUTDOWN = "shutdown"
    RESET = "reset"
    CRASH = "crash"
    OTHER = "other"


@attrs.frozen
class PioRead:
    """The guest reads `count` times `size` bytes (1, 2, 4) from I/O port `port`; answer with `Vcpu.reply`."""

    port: int
    size: int
    count: int


@attrs.frozen
class PioWrite:
    """The guest wrote `data` (a multiple of `size` bytes: 1, 2, 4) to I/O port `port`."""

    port: int
    size: int
    data: bytes


@attrs.frozen
class MmioRead:
    """The guest reads `size` bytes (1…8) at guest-physical `addr`; answer with `Vcpu.reply`."""

    addr: int
    size: int


@attrs.frozen
class MmioWrite:
    """The guest wrote `data` (1…8 bytes) at guest-physical `addr`."""

    addr: int
    data: bytes


@attrs.frozen
class Halt:
    """The guest halted, and no in-kernel interrupt controller could wake it."""


@attrs.frozen
class Shutdown:
    """The guest shut down without asking anybody: on x86 a triple fault."""


@attrs.frozen
class SystemEvent:
    """The guest asked for `kind` of the whole machine; `code` is the hypervisor's own number."""

    kind: SystemEventKind
    code: int


@attrs.frozen
class IoapicEoi:
    """The guest acknowledged interrupt `vector` of a user-space I/O APIC (0…255)."""

    vector: int


@attrs.frozen
class Kicked:
    """`Vcpu.kick` was called; every pending access has been completed."""


@attrs.frozen
class DebugStop:
    """A breakpoint or single step; `pc` is the guest's instruction pointer."""

    pc: int


@attrs.frozen
class Failure:
    """The hypervisor cannot run this vCPU on; `reason` names its code and data."""

    reason: str


Exit: TypeAlias = (
    PioRead
    | PioWrite
    | MmioRead
    | MmioWrite
    | Halt
    | Shutdown
    | SystemEvent
    | IoapicEoi
    | Kicked
    | DebugStop
    | Failure
)
"""Whatever `Vcpu.run` returns, on every backend."""
