"""In what two processors differ."""

import attrs

from vm_hypervisor.cpuid._bits import bit_names, named_bits, place
from vm_hypervisor.cpuid._table import REGISTERS, CpuTable, Register

__all__ = ("Difference", "diff")


@attrs.frozen
class Difference:
    """A register that has two values.

    Attributes:
        where: such as "0x7.0 ebx" or "msr 0x10a".
        first: its value in the first table; None where an MSR is not there.
        second: likewise in the second.
        only_first: names of the feature bits that only the first has; () in a register without names.
        only_second: likewise.
    """

    where: str
    first: int | None
    second: int | None
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()

    def __str__(self) -> str:
        values = " → ".join("none" if value is None else f"{value:#x}" for value in (self.first, self.second))
        names = [f"-{name}" for name in self.only_first] + [f"+{name}" for name in self.only_second]
        return " ".join([f"{self.where}: {values}", *names])


def diff(first: CpuTable, second: CpuTable) -> tuple[Difference, ...]:
    """Return what differs, by leaf, index, register, then MSRs; () when both answer the same.

    A leaf that is not there answers zeros and so equals one that is all zero.
    """
    places = sorted({(leaf.function, leaf.index) for table in (first, second) for leaf in table.leaves})
    found = [
        difference
        for function, index in places
        for register in REGISTERS
        if (difference := _register(first, second, function, index, register))
    ]
    for msr in sorted({*first.msrs, *second.msrs}):
        values = first.msrs.get(msr), second.msrs.get(msr)
        if values[0] != values[1]:
            found.append(Difference(f"msr {msr:#x}", *values))
    return tuple(found)


def _register(
    first: CpuTable, second: CpuTable, function: int, index: int, register: Register
) -> Difference | None:
    one, two = first.value(function, register, index), second.value(function, register, index)
    if one == two:
        return None
    where = place(function, register, index)
    if not named_bits(function, register, index):
        return Difference(where, one, two)
    only = (bit_names(value, function, register, index) for value in (one & ~two, two & ~one))
    return Difference(where, one, two, *only)
