"""What a processor says of itself: CPUID leaves and the MSRs beside them, as a value and as text."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import attrs
from vm_device import Value

from vm_hypervisor._errors import CpuidError

__all__ = ("REGISTERS", "CpuTable", "CpuidLeaf", "Register")

Register: TypeAlias = Literal["eax", "ebx", "ecx", "edx"]
"""One of the four registers of a leaf."""
REGISTERS: Final[tuple[Register, ...]] = ("eax", "ebx", "ecx", "edx")
"""All four, in the order of dumps and templates."""
_MOST_LEAVES: Final = 256  # KVM_MAX_CPUID_ENTRIES


@attrs.frozen(eq=False, repr=False)
class CpuidLeaf(Value):
    """One CPUID answer: leaf `function`, sub-leaf `index` (`significant` or not), and four registers.

    `eax`, `ebx`, `ecx` and `edx` are 32 bits each.
    """

    function: int
    index: int
    significant: bool
    eax: int
    ebx: int
    ecx: int
    edx: int

    def with_register(self, register: Register, value: int) -> "CpuidLeaf":
        """Return the leaf with another value in one register."""
        values = {name: value if name == register else int(getattr(self, name)) for name in REGISTERS}
        return CpuidLeaf(self.function, self.index, self.significant, **values)


def _leaves(leaves: Iterable[CpuidLeaf]) -> tuple[CpuidLeaf, ...]:
    return tuple(leaves)


def _frozen(msrs: Mapping[int, int]) -> Mapping[int, int]:
    return MappingProxyType(dict(msrs))


@attrs.frozen(slots=False, eq=False, repr=False)
class CpuTable(Value):
    """The CPUID answers and feature MSRs of one processor.

    Args:
        leaves: in any order, each (function, index) once, at most 256.
        msrs: index → 64-bit value, of MSRs that say what a processor has, such as 0x10a.

    Raises:
        CpuidError: a leaf is there twice, or there are more than 256.
    """

    leaves: tuple[CpuidLeaf, ...] = attrs.field(converter=_leaves)
    msrs: Mapping[int, int] = attrs.field(factory=dict, converter=_frozen, hash=False)

    def __attrs_post_init__(self) -> None:
        if len(self.leaves) > _MOST_LEAVES:
            raise CpuidError(f"{len(self.leaves)} CPUID leaves; KVM takes at most {_MOST_LEAVES}")
        if len(self._places) != len(self.leaves):
            counts = Counter((leaf.function, leaf.index) for leaf in self.leaves)
            (function, index), _ = counts.most_common(1)[0]
            raise CpuidError(f"CPUID leaf {function:#x} index {index:#x} is there twice; keep one of them")

    @cached_property
    def _places(self) -> dict[tuple[int, int], CpuidLeaf]:
        return {(leaf.function, leaf.index): leaf for leaf in self.leaves}

    def leaf(self, function: int, index: int = 0) -> CpuidLeaf | None:
        """Return one leaf, None when there is none."""
        return self._places.get((function, index))

    def value(self, function: int, register: Register, index: int = 0) -> int:
        """Return a register, 0 when the leaf is not there, as a processor answers."""
        leaf = self.leaf(function, index)
        return 0 if leaf is None else int(getattr(leaf, register))

    def replaced(self, leaves: Iterable[CpuidLeaf]) -> "CpuTable":
        """Return the table with these instead of those at the same places, new ones at the end."""
        places = self._places | {(leaf.function, leaf.index): leaf for leaf in leaves}
        return CpuTable(places.values(), self.msrs)

    @property
    def vendor(self) -> str:
        """The twelve characters of leaf 0, such as "GenuineIntel"; "" without that leaf."""
        leaf = self.leaf(0)
        if leaf is None:
            return ""
        return b"".join(word.to_bytes(4, "little") for word in (leaf.ebx, leaf.edx, leaf.ecx)).decode(
            "latin-1"
        )

    def to_text(self, cpu: int | None = None) -> str:
        """Return the table as `cpuid --raw` prints a processor, with the MSRs as comments behind it.

        Args:
            cpu: its number, for a text of several.
        """
        lines = ["CPU:" if cpu is None else f"CPU {cpu}:"]
        for leaf in self.leaves:
            registers = " ".join(f"{name}=0x{getattr(leaf, name):08x}" for name in REGISTERS)
            lines.append(f"   0x{leaf.function:08x} 0x{leaf.index:02x}: {registers}")
        lines += [f"# msr 0x{index:08x} = 0x{value:016x}" for index, value in sorted(self.msrs.items())]
        return "\n".join([*lines, ""])

    @classmethod
    def from_text(cls, text: str, source: str = "dump") -> "CpuTable":
        """Read the first processor of what `to_text` or `cpuid --raw` wrote.

        Args:
            text: at most 1 MiB.
            source: where it is from, for errors.

        Raises:
            CpuidError: a line is none of a dump's (it is shown with its number), or there is no leaf.
        """
        from vm_hypervisor.cpuid._dump import parse  # noqa: PLC0415 - a machine starts without

        return cls(*parse(text, source))
