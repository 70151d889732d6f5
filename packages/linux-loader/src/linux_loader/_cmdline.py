"""The kernel command line, built argument by argument.

Grammar as Linux parses it (``lib/cmdline.c`` next_arg, ``parse_args``): spaces separate arguments, double
quotes protect spaces, and a bare ``--`` hands everything after it to init.
"""

from __future__ import annotations

from collections.abc import Iterable

from linux_loader._errors import CmdlineError, CmdlineTooLongError, ConfigurationError

DEFAULT_CAPACITY = 2048
_SEPARATOR = "--"


def _check_printable(text: str) -> None:
    bad = next((c for c in text if not " " <= c <= "~"), None)
    if bad is not None:
        raise CmdlineError(f"character {bad!r} is not printable ASCII (0x20..0x7e)", text=text)


def _check_quotes(text: str) -> None:
    if text.count('"') % 2:
        raise CmdlineError("a double quote is never closed", text=text)


def _check_key(key: str) -> None:
    _check_printable(key)
    if not key or any(c in ' ="' for c in key):
        raise CmdlineError("a key must be non-empty and have no space, '=' or double quote", text=key)


def _value(value: str) -> str:
    """Check a value and add the quotes it needs."""
    _check_printable(value)
    bare = value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value
    if '"' in bare:
        raise CmdlineError("a value cannot hold a double quote: the kernel has no escape for it", text=value)
    return f'"{bare}"' if " " in bare or bare != value else value


def _split(text: str) -> list[str]:
    """Split at spaces outside double quotes."""
    words, current, quoted = [], "", False
    for char in text:
        quoted ^= char == '"'
        if char == " " and not quoted:
            words.append(current)
            current = ""
        else:
            current += char
    return [w for w in [*words, current] if w]


def _size_text(size: int) -> str:
    for shift, suffix in ((30, "G"), (20, "M"), (10, "K")):
        if size % (1 << shift) == 0:
            return f"{size >> shift}{suffix}"
    return str(size)


class Cmdline:
    """A command line that never exceeds its capacity.

    Each method that adds something checks it first: on failure the command line is unchanged.

    Args:
        text: Arguments to start with; those after a bare ``--`` are for init.
        capacity: Bytes it may occupy, the final NUL included; at least 1. Linux on x86 reads 2048.

    Raises:
        ConfigurationError: ``capacity`` is below 1.
        CmdlineError: ``text`` is illegal or too long.
    """

    def __init__(self, text: str = "", *, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ConfigurationError(
                "capacity", f"{capacity} bytes cannot hold even the final NUL; at least 1"
            )
        self._capacity = capacity
        self._boot: list[str] = []
        self._init: list[str] = []
        self.insert_str(text)

    @property
    def capacity(self) -> int:
        """Bytes it may occupy, the final NUL included."""
        return self._capacity

    @property
    def boot_args(self) -> tuple[str, ...]:
        """The arguments for the kernel, in order."""
        return tuple(self._boot)

    @property
    def init_args(self) -> tuple[str, ...]:
        """The arguments for init, in order."""
        return tuple(self._init)

    def _commit(self, boot: list[str], init: list[str]) -> None:
        text = _render(boot, init)
        if len(text) + 1 > self._capacity:
            raise CmdlineTooLongError(length=len(text) + 1, capacity=self._capacity, text=text)
        self._boot, self._init = boot, init

    def insert(self, key: str, value: str) -> None:
        """Append ``key=value``, quoting the value when it holds spaces.

        Args:
            key: Non-empty printable ASCII without space, ``=`` or double quote.
            value: Printable ASCII; double quotes only around the whole value.

        Raises:
            CmdlineError: The key or value is illegal, or the line would be too long.
        """
        _check_key(key)
        self._commit([*self._boot, f"{key}={_value(value)}"], self._init)

    def insert_multiple(self, key: str, values: Iterable[str]) -> None:
        """Append ``key=v1,v2,…``.

        Args:
            key: As for :meth:`insert`.
            values: At least one value.

        Raises:
            CmdlineError: There is no value, or as for :meth:`insert`.
        """
        joined = list(values)
        if not joined:
            raise CmdlineError("a key with a list needs at least one value", text=key)
        self.insert(key, ",".join(joined))

    def insert_flag(self, name: str) -> None:
        """Append a bare word such as ``quiet``.

        Args:
            name: A key as for :meth:`insert`; ``--`` is refused.

        Raises:
            CmdlineError: The word is illegal, or the line would be too long.
        """
        _check_key(name)
        if name == _SEPARATOR:
            raise CmdlineError("'--' separates init's arguments; use insert_init_args", text=name)
        self._commit([*self._boot, name], self._init)

    def insert_str(self, text: str) -> None:
        """Append arguments as a user wrote them, ``--`` included.

        Args:
            text: Printable ASCII with balanced double quotes; runs of spaces collapse.

        Raises:
            CmdlineError: The text is illegal, or the line would be too long.
        """
        _check_printable(text)
        _check_quotes(text)
        words = _split(text)
        cut = words.index(_SEPARATOR) if _SEPARATOR in words else len(words)
        self._commit([*self._boot, *words[:cut]], [*self._init, *words[cut + 1 :]])

    def insert_init_args(self, text: str) -> None:
        """Append arguments for init.

        Args:
            text: As for :meth:`insert_str`, without a separator of its own.

        Raises:
            CmdlineError: The text is illegal, or the line would be too long.
        """
        _check_printable(text)
        _check_quotes(text)
        self._commit(self._boot, [*self._init, *_split(text)])

    def insert_virtio_mmio(self, size: int, base: int, gsi: int, device_id: int | None = None) -> None:
        """Append ``virtio_mmio.device=SIZE@BASE:GSI[:ID]``, for kernels built to read it (Debian's are not).

        Args:
            size: Bytes of the register window, above 0.
            base: Its guest-physical address.
            gsi: Interrupt number.
            device_id: Platform device id, or None for the next free one.

        Raises:
            ConfigurationError: A number is negative or ``size`` is 0.
            CmdlineTooLongError: The line would be too long.
        """
        if size < 1 or min(base, gsi, device_id or 0) < 0:
            raise ConfigurationError(
                "virtio_mmio",
                f"size {size}, base {base:#x}, gsi {gsi}, id {device_id}: size >= 1, others >= 0",
            )
        tail = "" if device_id is None else f":{device_id}"
        self.insert("virtio_mmio.device", f"{_size_text(size)}@{base:#x}:{gsi}{tail}")

    def __str__(self) -> str:
        return _render(self._boot, self._init)

    def encode(self) -> bytes:
        """The bytes for guest memory: ASCII with a final NUL, at most ``capacity`` long."""
        return str(self).encode("ascii") + b"\0"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cmdline):
            return NotImplemented
        return (self._boot, self._init) == (other._boot, other._init)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Cmdline({str(self)!r}, capacity={self._capacity})"


def _render(boot: list[str], init: list[str]) -> str:
    return " ".join([*boot, _SEPARATOR, *init] if init else boot)
