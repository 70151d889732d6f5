"""Accesses that need no VMM: what no device claims, answered next to the hypervisor."""

from collections.abc import Iterable

from vm_device.platform import AddressRange, AddressSpace

from vm_hypervisor._protocols import NativeAnswer

_PORTS = 1 << 16
_ALL_ONES = (1 << 64) - 1


def unclaimed_ports(claimed: Iterable[AddressRange]) -> tuple[NativeAnswer, ...]:
    """Return answers for every I/O port outside `claimed`: reads give all ones, writes vanish.

    That is what an open bus does, and what `vm_device.Bus` does for such ports; a guest that probes
    for devices that are not there then costs no trip to the VMM.

    Args:
        claimed: the ranges that devices answer; those of MMIO are ignored.
    """
    ports = sorted((r.base, r.last) for r in claimed if r.space is AddressSpace.PIO)
    answers, free = [], 0
    for base, last in (*ports, (_PORTS, _PORTS)):
        if base > free:
            gap = AddressRange(AddressSpace.PIO, free, base - free)
            answers.append(NativeAnswer(gap, read=_ALL_ONES, drop_writes=True))
        free = max(free, last + 1)
    return tuple(answers)
