"""The grammar of Cloud Hypervisor's options: `key=value,key=[list],flag=on`.

Values with commas stand in double quotes, a quote inside is doubled; lists in brackets, with
ranges `0-3`; sizes take K, M, G, T (powers of 1024); toggles are on, off, true, false.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import TypeVar

from vmm_reference._errors import ConfigError

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)
_SIZE = re.compile(r"([0-9]{1,20})([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_CPU_SET = re.compile(r"\[(.*)\]|([0-9-]+)")
_MOST_DIGITS = 20
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_TOGGLES = {"on": True, "true": True, "off": False, "false": False}


def split_top(text: str, separator: str = ",") -> Iterator[str]:
    """Yield the parts of `text` between separators that stand outside quotes and brackets.

    Raises:
        ValueError: a quote or bracket is not closed, or one is closed that was never opened.
    """
    start, depth, quoted = 0, 0, False
    for position, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char in "[]":
            depth += 1 if char == "[" else -1
            if depth < 0:
                raise ValueError(f"']' at position {position} closes nothing in {text!r}")
        elif char == separator and depth == 0:
            yield text[start:position]
            start = position + 1
    if quoted or depth:
        what = (
            "quote is never closed (one inside a value is doubled)" if quoted else "bracket is never closed"
        )
        raise ValueError(f"{what} in {text!r}")
    yield text[start:]


def unquote(text: str) -> str:
    """Take the surrounding double quotes off a value, and undouble those inside."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def quote(text: str) -> str:
    """Return `text` as a value that `unquote` and `split_top` give back whole."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def meant(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return " (did you mean X?)" for the nearest of `known`, "" when none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    near = get_close_matches(word, known, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def parse_size(text: str) -> int:
    """Return a size in bytes: "512M", "2G", "4096".

    Raises:
        ValueError: not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a whole number with K, M, G or T, such as 3584M")
    return int(match[1]) << _SHIFT[match[2].upper()]


def parse_toggle(text: str) -> bool:
    """Return what on, off, true or false mean.

    Raises:
        ValueError: none of the four.
    """
    try:
        return _TOGGLES[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither on nor off") from None


def parse_word(kind: type[_E]) -> Callable[[str], _E]:
    """Return what reads a member of `kind`, an enumeration of words; ValueError for other words."""
    words = {member.value: member for member in kind}

    def parse(text: str) -> _E:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return words[text]

    return parse


def parse_count(text: str) -> int:
    """Return a non-negative decimal integer.

    Raises:
        ValueError: not one.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def parse_cpu_set(text: str) -> frozenset[int]:
    """Return the numbers of a list with ranges: "[0-2,5]" or "3".

    Raises:
        ValueError: not such a list, or a range that runs backwards or is absurdly long.
    """
    match = _CPU_SET.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a list of numbers such as [0-2,5]")
    numbers: set[int] = set()
    for part in (match[1] or match[2] or "").split(","):
        first, dash, last = part.partition("-")
        low, high = parse_count(first), parse_count(last if dash else first)
        if not low <= high < 65536:
            raise ValueError(f"{part!r} is not a range of numbers below 65536")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def parse_affinity(text: str) -> dict[int, frozenset[int]]:
    """Return vCPU → host CPUs from "[0@[1],1@[2-3]]".

    Raises:
        ValueError: not of that form, or a vCPU named twice.
    """
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"{text!r} is not a list such as [0@[1],1@[2-3]]")
    pinned: dict[int, frozenset[int]] = {}
    for part in split_top(text[1:-1]):
        vcpu, at, cpus = part.partition("@")
        if not at:
            raise ValueError(f"{part!r} has no '@' between vCPU and host CPUs")
        if parse_count(vcpu) in pinned:
            raise ValueError(f"vCPU {vcpu} is named twice")
        pinned[parse_count(vcpu)] = parse_cpu_set(cpus)
    return pinned


class Options:
    """The keys of one option, each taken at most once; what is left over is an error."""

    def __init__(self, option: str, text: str) -> None:
        """Split `text` ("path=a,readonly=on") as the value of `option` ("--disk").

        Raises:
            ConfigError: malformed, or a key given twice.
        """
        self._option = option
        self._values: dict[str, str] = {}
        try:
            parts = list(split_top(text))
        except ValueError as error:
            raise ConfigError(option, str(error)) from None
        for part in parts:
            self._add(part)

    def _add(self, part: str) -> None:
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(
                self._option, f"{part!r} is not of the form key=value; `vmm run --help` lists the keys"
            )
        if key in self._values:
            raise ConfigError(f"{self._option} {key}", f"given twice ({self._values[key]!r} and {value!r})")
        self._values[key] = unquote(value)

    def has(self, key: str) -> bool:
        """Return whether `key` was given and not yet taken."""
        return key in self._values

    def take(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Return and forget the parsed value of `key`, or `default` when it was not given.

        Raises:
            ConfigError: `parse` refused the value.
        """
        if key not in self._values:
            return default
        try:
            return parse(self._values.pop(key))
        except ValueError as error:
            raise ConfigError(f"{self._option} {key}", str(error)) from None

    def require(self, key: str) -> str:
        """Return and forget the value of a key that must be given and not be empty.

        Raises:
            ConfigError: it was not.
        """
        value = self._values.pop(key, "")
        if not value:
            raise ConfigError(self._option, f"{key}= is missing")
        return value

    def finish(self, known: Mapping[str, str]) -> None:
        """Refuse what nobody took.

        Args:
            known: every key of the option with its meaning, for the message.

        Raises:
            ConfigError: an unknown key is left.
        """
        for key in self._values:
            takes = f"{self._option} takes {', '.join(known)}"
            raise ConfigError(f"{self._option} {key}", f"unknown key{meant(key, known)}; {takes}")
