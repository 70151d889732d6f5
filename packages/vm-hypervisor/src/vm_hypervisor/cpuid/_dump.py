"""Dumps of CPUID leaves, as the program cpuid and `CpuTable.to_text` write them, read."""

import re
from typing import Final

from vm_hypervisor._errors import CpuidError
from vm_hypervisor.cpuid._table import CpuidLeaf

_MOST: Final = 1 << 20  # characters; of one processor a dump has some 10 KiB
# Leaves whose answer depends on ECX (Intel SDM 2A table 3-8, AMD APM 3 appendix E).
_INDEXED: Final = frozenset(
    (0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1B, 0x1D, 0x1E, 0x1F, 0x20, 0x23, 0x24)
) | {0x8000_001D, 0x8000_0020, 0x8000_0026}
_CPU: Final = re.compile(r"CPU(?: \d+)?:")
_LEAF: Final = re.compile(
    r"0x([0-9a-f]{1,8}) 0x([0-9a-f]{1,8}): eax=0x([0-9a-f]{1,8}) ebx=0x([0-9a-f]{1,8}) "
    r"ecx=0x([0-9a-f]{1,8}) edx=0x([0-9a-f]{1,8})"
)
_MSR: Final = re.compile(r"# msr 0x([0-9a-f]{1,8}) = 0x([0-9a-f]{1,16})")


def is_indexed(function: int) -> bool:
    """Say whether a leaf has sub-leaves."""
    return function in _INDEXED


def parse(text: str, source: str) -> tuple[list[CpuidLeaf], dict[int, int]]:
    """Return leaves and MSRs of the first processor; see `CpuTable.from_text`."""
    if len(text) > _MOST:
        raise CpuidError(f"{source}: {len(text)} characters are no CPUID dump, which has at most {_MOST}")
    leaves: list[CpuidLeaf] = []
    msrs: dict[int, int] = {}
    skipping = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if _CPU.fullmatch(line):
            skipping = bool(leaves)
        elif match := _MSR.fullmatch(line):
            if not skipping:
                msrs[int(match[1], 16)] = int(match[2], 16)
        elif match := _LEAF.fullmatch(line):
            if not skipping:
                function, index, *registers = (int(word, 16) for word in match.groups())
                leaves.append(CpuidLeaf(function, index, is_indexed(function), *registers))
        elif line and not line.startswith("#"):
            raise CpuidError(
                f"{source} line {number}: {line[:80]!r} is none of a CPUID dump; "
                "make one with `vmm cpuid dump` or `cpuid --one-cpu --raw`"
            )
    if not leaves:
        raise CpuidError(
            f"{source}: no CPUID leaf in it; make a dump with `vmm cpuid dump` or `cpuid --one-cpu --raw`"
        )
    return leaves, msrs
