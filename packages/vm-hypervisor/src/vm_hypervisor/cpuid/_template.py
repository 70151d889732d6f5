"""Templates: what guests shall see of a processor, the same on every host that has it; files of TOML."""

from collections.abc import Collection, Iterator
from os import PathLike
from pathlib import Path
from typing import Final, NoReturn

import attrs

from vm_hypervisor._errors import CpuidError
from vm_hypervisor.cpuid._bits import bit_names, mask_of, place
from vm_hypervisor.cpuid._dump import is_indexed
from vm_hypervisor.cpuid._table import REGISTERS, CpuidLeaf, CpuTable, Register

__all__ = ("BUILT_IN", "MsrRule", "RegisterRule", "Template")

BUILT_IN: Final = ("host", "t2")
"""The templates that come with this package."""
_TEMPLATES: Final = Path(__file__).with_name("templates")
_MASKS: Final = ("need", "keep", "set")
_MOST_TEXT: Final = 1 << 20


@attrs.frozen
class RegisterRule:
    """A register of leaf `function`, sub-leaf `index`, becomes ``value & (need | keep) | set``.

    The host must have all of `need`.
    """

    function: int
    index: int
    register: Register
    need: int = 0
    keep: int = 0
    set: int = 0


@attrs.frozen
class MsrRule:
    """As `RegisterRule` with its `need`, `keep` and `set`, for MSR `index`; guests get this value at boot."""

    index: int
    need: int = 0
    keep: int = 0
    set: int = 0


@attrs.frozen
class Template:
    """Rules that make one processor look like another.

    Args:
        name: for errors.
        description: one line.
        vendor: the only one it fits, such as "GenuineIntel"; "" for any.
        registers: of CPUID; what has no rule passes as it is.
        msrs: MSRs that guests get.
        last: leaves after which a range ends, such as 0xD and 0x80000008; those behind are not there.
    """

    name: str
    description: str = ""
    vendor: str = ""
    registers: tuple[RegisterRule, ...] = ()
    msrs: tuple[MsrRule, ...] = ()
    last: tuple[int, ...] = ()

    @classmethod
    def load(cls, name: str | PathLike[str]) -> "Template":
        """Return a built-in template by name, or read the file of that path (with a "/" or ".toml" in it).

        Raises:
            CpuidError: there is none of that name, the file cannot be read, or it is no template.
        """
        text = str(name)
        if text in BUILT_IN:
            return cls.parse((_TEMPLATES / f"{text}.toml").read_text("utf-8"), text)
        if "/" not in text and not text.endswith(".toml"):
            raise CpuidError(
                f"CPU template {text!r} is not built in; there are {', '.join(BUILT_IN)}, "
                f"or give a file: ./{text}.toml"
            )
        try:
            if Path(text).exists() and not Path(text).is_file():
                # Of a pipe the second reader would get nothing, and nothing is a template that masks nothing.
                raise CpuidError(f"CPU template {text}: is not a regular file; give the path of one")
            with Path(text).open(encoding="utf-8") as file:
                content = file.read(_MOST_TEXT + 1)
        except OSError as error:
            raise CpuidError(f"CPU template {text}: {error.strerror}; give the path of a file") from None
        except UnicodeDecodeError as error:
            raise CpuidError(
                f"CPU template {text}: no UTF-8 at byte {error.start}; a template is TOML"
            ) from None
        if len(content) > _MOST_TEXT:  # cut, it may be a template that masks less
            raise CpuidError(
                f"CPU template {text}: more than {_MOST_TEXT} characters; a template has some 3000"
            )
        return cls.parse(content, text)

    @classmethod
    def parse(cls, text: str, name: str) -> "Template":
        """Read a template.

        Args:
            text: TOML; docs/packages/vm-hypervisor.md of the repository describes it.
            name: for errors.

        Raises:
            CpuidError: no TOML, an unknown key or bit, a number that does not fit, or rules that contradict.
        """
        import tomllib  # noqa: PLC0415 - a machine without a template starts without

        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CpuidError(f"CPU template {name}: {error}") from None
        source = f"CPU template {name}"
        _only(data, {"description", "vendor", "last", "cpuid", "msr"}, source)
        texts = {key: data.get(key, "") for key in ("description", "vendor")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise CpuidError(f"{source}: {key}={value!r} is no text")
        registers = tuple(_register(rule, source) for rule in _rules(data, "cpuid", source))
        msrs = tuple(_msr(rule, source) for rule in _rules(data, "msr", source))
        places = [place(rule.function, rule.register, rule.index) for rule in registers]
        places += [f"msr {rule.index:#x}" for rule in msrs]
        last = _leaves(data.get("last", []), source)
        places += [f"the last leaf of range {leaf & 0xFFFF_0000:#x}" for leaf in last]
        if twice := next((where for where in places if places.count(where) > 1), None):
            raise CpuidError(f"{source}: two rules for {twice}; make one of them")
        lasts = {leaf >> 16: leaf for leaf in last}
        for rule in registers:
            if rule.function > lasts.get(rule.function >> 16, rule.function):
                where = place(rule.function, rule.register, rule.index)
                raise CpuidError(f"{source}: {where} is behind the last leaf; drop the rule or move that")
        return cls(name, texts["description"], texts["vendor"], registers, msrs, last)

    def apply(self, table: CpuTable) -> CpuTable:
        """Return the table as guests shall see it; its MSRs are those of the rules.

        Raises:
            CpuidError: the host is of another vendor, or lacks a bit or an MSR that the template needs.
        """
        if self.vendor and table.vendor != self.vendor:
            raise CpuidError(
                f"CPU template {self.name} is for {self.vendor}, this processor is "
                f"{table.vendor or 'unknown'}; use template=host or one made for it"
            )
        leaves = {(leaf.function, leaf.index): leaf for leaf in self._within(table)}
        for rule in self.registers:
            where = rule.function, rule.index
            value = table.value(rule.function, rule.register, rule.index)
            if missing := rule.need & ~value:
                names = ", ".join(bit_names(missing, rule.function, rule.register, rule.index))
                self._refuse(f"{names} ({place(rule.function, rule.register, rule.index)})")
            value = value & (rule.need | rule.keep) | rule.set
            if value or where in leaves:
                leaf = leaves.get(where) or CpuidLeaf(*where, is_indexed(rule.function), 0, 0, 0, 0)
                leaves[where] = leaf.with_register(rule.register, value)
        return CpuTable(leaves.values(), {rule.index: self._msr(rule, table) for rule in self.msrs})

    def _within(self, table: CpuTable) -> Iterator[CpuidLeaf]:
        """Yield the leaves up to the last ones, which the first leaf of each range names."""
        lasts = {last >> 16: last for last in self.last}
        for leaf in table.leaves:
            last = lasts.get(leaf.function >> 16, leaf.function)
            if leaf.function & 0xFFFF == 0 and leaf.function >> 16 in lasts:
                yield leaf.with_register("eax", min(leaf.eax, last))
            elif leaf.function <= last:
                yield leaf

    def _msr(self, rule: MsrRule, table: CpuTable) -> int:
        value = table.msrs.get(rule.index)
        if value is None:
            self._refuse(f"msr {rule.index:#x}")
        if missing := rule.need & ~value:
            self._refuse(f"bits {missing:#x} of msr {rule.index:#x}")
        return value & (rule.need | rule.keep) | rule.set

    def _refuse(self, what: str) -> NoReturn:
        raise CpuidError(
            f"CPU template {self.name} needs {what}, which this host cannot give a guest; "
            "use template=host or one made for it"
        )


def _only(table: dict[str, object], known: Collection[str], source: str) -> None:
    for key in table:
        if key not in known:
            raise CpuidError(f"{source}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _rules(data: dict[str, object], key: str, source: str) -> list[dict[str, object]]:
    rules = data.get(key, [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise CpuidError(f"{source}: {key} is {rules!r}, not a list of tables; write [[{key}]] before each")
    return rules


def _number(rule: dict[str, object], key: str, bits: int, source: str, default: int | None = None) -> int:
    value = rule.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise CpuidError(f"{source}: {key}={value!r} in {rule} is no number of {bits} bits")
    return value


def _leaves(value: object, source: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise CpuidError(f"{source}: last={value!r} is no list of leaves")
    return tuple(_number({"last": leaf}, "last", 32, source) for leaf in value)


def _register(rule: dict[str, object], source: str) -> RegisterRule:
    _only(rule, {"leaf", "index", "register", *_MASKS}, source)
    function, index = _number(rule, "leaf", 32, source), _number(rule, "index", 32, source, 0)
    register = rule.get("register")
    if register not in REGISTERS:
        raise CpuidError(
            f"{source}: register={register!r} of leaf {function:#x} is none of {', '.join(REGISTERS)}"
        )
    masks = {}
    for key in _MASKS:
        given = rule.get(key, 0)
        if isinstance(given, list):
            masks[key] = mask_of(given, function, register, index, source)
        else:
            masks[key] = _number(rule, key, 32, source, 0)
    return RegisterRule(function, index, register, **masks)


def _msr(rule: dict[str, object], source: str) -> MsrRule:
    _only(rule, {"index", *_MASKS}, source)
    return MsrRule(_number(rule, "index", 32, source), *(_number(rule, key, 64, source, 0) for key in _MASKS))
