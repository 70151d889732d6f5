"""Saved states of the small devices and allocators that every machine has; loaded when one is saved."""

import attrs

from vm_device._alloc import Allocation
from vm_device.platform import AddressSpace

__all__ = (
    "AcpiRegistersState",
    "AllocatorState",
    "BootTimerState",
    "CmosState",
    "DebugConsoleState",
    "I8042State",
    "IdAllocatorState",
    "PostCodesState",
    "PvpanicState",
)


@attrs.frozen
class AcpiRegistersState:
    """Saved state of AcpiRegisters, version 1: SLP_TYP (`sleep_type`) and WAK_STS (`wake_status`)."""

    sleep_type: int
    wake_status: bool
    version: int = 1


@attrs.frozen
class AllocatorState:
    """Saved state of an AddressAllocator of `size` bytes from `base`, version 1; `allocations` by address.

    `space` is where: PIO or MMIO.
    """

    space: AddressSpace
    base: int
    size: int
    allocations: tuple[Allocation, ...]
    version: int = 1


@attrs.frozen
class BootTimerState:
    """Saved state of a BootTimer, version 1: a port that keeps nothing."""

    version: int = 1


@attrs.frozen
class CmosState:
    """Saved state of a CmosRtc, version 1.

    `index` is the register that port 0x70 selects; `cells` are the 128 bytes as last latched or written;
    `offset` is guest time minus host time in seconds; `flags` is status C.
    """

    index: int
    offset: int
    cells: bytes
    flags: int = 0
    version: int = 1


@attrs.frozen
class DebugConsoleState:
    """Saved state of a DebugConsole, version 1: how many bytes were `lost`."""

    lost: int
    version: int = 1


@attrs.frozen
class I8042State:
    """Saved state of an I8042, version 1.

    `config` is the configuration byte, `expecting` the command whose parameter comes next, or 0; `port_b` is
    system control port B; `output` the bytes that the guest has not read yet, oldest first.
    """

    config: int
    expecting: int
    port_b: int
    output: tuple[int, ...]
    version: int = 1


@attrs.frozen
class IdAllocatorState:
    """Saved state of an IdAllocator of `first` … `last`, version 1; `allocated`: (id, owner), ascending."""

    first: int
    last: int
    allocated: tuple[tuple[int, str], ...]
    version: int = 1


@attrs.frozen
class PostCodesState:
    """Saved state of a PostCodes, version 1: a port that keeps nothing."""

    version: int = 1


@attrs.frozen
class PvpanicState:
    """Saved state of a Pvpanic, version 1: the `events` that the guest was told of, bits of PvpanicEvent."""

    events: int
    version: int = 1
