"""The names of CPUID's feature bits: those of /proc/cpuinfo, out of `bits.toml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from vm_hypervisor._errors import CpuidError
from vm_hypervisor.cpuid._table import REGISTERS, CpuTable, Register

_NONE: Final[Mapping[str, int]] = {}


@cache
def _names() -> dict[str, dict[str, int]]:
    import tomllib  # noqa: PLC0415 - a machine without a template starts without

    return tomllib.loads(Path(__file__).with_name("bits.toml").read_text("utf-8"))


def place(function: int, register: Register, index: int = 0) -> str:
    """Return how errors, differences and `bits.toml` call a register: "0x7.0 ebx"."""
    return f"{function:#x}.{index:#x} {register}".replace(".0x", ".")


def named_bits(function: int, register: Register, index: int = 0) -> Mapping[str, int]:
    """Return the bits of a register by name."""
    return _names().get(place(function, register, index), _NONE)


def bit_names(value: int, function: int, register: Register, index: int = 0) -> tuple[str, ...]:
    """Return a name for each bit that is set, "bit N" for one without."""
    names = {bit: name for name, bit in named_bits(function, register, index).items()}
    return tuple(names.get(bit, f"bit {bit}") for bit in range(32) if value >> bit & 1)


def features(table: CpuTable) -> dict[str, tuple[str, ...]]:
    """Return the names of the feature bits that are set, by register ("0x7.0 ebx") in the order of leaves."""
    return {
        place(leaf.function, register, leaf.index): names
        for leaf in table.leaves
        for register in REGISTERS
        if named_bits(leaf.function, register, leaf.index)
        and (names := bit_names(getattr(leaf, register), leaf.function, register, leaf.index))
    }


def mask_of(names: list[object], function: int, register: Register, index: int, source: str) -> int:
    """Return the mask of named bits.

    Raises:
        CpuidError: a name is unknown; near ones are proposed.
    """
    known = named_bits(function, register, index)
    mask = 0
    for name in names:
        if not isinstance(name, str) or name not in known:
            from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
            where = place(function, register, index)
            raise CpuidError(f"{source}: {name!r} is no bit of {where}; {hint} A mask such as 0x3 works too")
        mask |= 1 << known[name]
    return mask
