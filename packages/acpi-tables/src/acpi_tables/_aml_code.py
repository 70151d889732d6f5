"""Reader for all of AML, method bodies and expressions included (ACPI 6.5 §20.2).

AML does not say how many arguments a call has. So the code is read twice: once for the methods it declares,
and once more with their argument counts at hand. The input is hostile, as for the declarative reader.
"""

from collections.abc import Mapping

from acpi_tables._aml_reader import AmlNode, Cursor, starts_name

__all__ = ("disassemble",)

_METHOD_TYPE = 8  # of External
_MAX_ARGUMENTS = 7
# Operands: t a term, s a target or a name, n a name, b w d a number of 1, 2, 4 bytes; P a PkgLength, up to
# whose end go T statements or F field units.
_OPERATIONS = {
    0x06: ("Alias", "nn"),
    0x15: ("External", "nbb"),
    0x14: ("Method", "PnbT"),
    0x10: ("Scope", "PnT"),
    0x08: ("Name", "nt"),
    0x70: ("Store", "ts"),
    0x71: ("RefOf", "s"),
    0x72: ("Add", "tts"),
    0x73: ("Concatenate", "tts"),
    0x74: ("Subtract", "tts"),
    0x75: ("Increment", "s"),
    0x76: ("Decrement", "s"),
    0x77: ("Multiply", "tts"),
    0x78: ("Divide", "ttss"),
    0x79: ("ShiftLeft", "tts"),
    0x7A: ("ShiftRight", "tts"),
    0x7B: ("And", "tts"),
    0x7C: ("NAnd", "tts"),
    0x7D: ("Or", "tts"),
    0x7E: ("NOr", "tts"),
    0x7F: ("XOr", "tts"),
    0x80: ("Not", "ts"),
    0x81: ("FindSetLeftBit", "ts"),
    0x82: ("FindSetRightBit", "ts"),
    0x83: ("DerefOf", "t"),
    0x84: ("ConcatenateResTemplate", "tts"),
    0x85: ("Mod", "tts"),
    0x86: ("Notify", "st"),
    0x87: ("SizeOf", "s"),
    0x88: ("Index", "tts"),
    0x89: ("Match", "tbtbtt"),
    0x8A: ("CreateDWordField", "ttn"),
    0x8B: ("CreateWordField", "ttn"),
    0x8C: ("CreateByteField", "ttn"),
    0x8D: ("CreateBitField", "ttn"),
    0x8E: ("ObjectType", "s"),
    0x8F: ("CreateQWordField", "ttn"),
    0x90: ("LAnd", "tt"),
    0x91: ("LOr", "tt"),
    0x92: ("LNot", "t"),
    0x93: ("LEqual", "tt"),
    0x94: ("LGreater", "tt"),
    0x95: ("LLess", "tt"),
    0x96: ("ToBuffer", "ts"),
    0x97: ("ToDecimalString", "ts"),
    0x98: ("ToHexString", "ts"),
    0x99: ("ToInteger", "ts"),
    0x9C: ("ToString", "tts"),
    0x9D: ("CopyObject", "ts"),
    0x9E: ("Mid", "ttts"),
    0x9F: ("Continue", ""),
    0xA0: ("If", "PtT"),
    0xA1: ("Else", "PT"),
    0xA2: ("While", "PtT"),
    0xA3: ("Noop", ""),
    0xA4: ("Return", "t"),
    0xA5: ("Break", ""),
    0xCC: ("BreakPoint", ""),
    0x5B01: ("Mutex", "nb"),
    0x5B02: ("Event", "n"),
    0x5B12: ("CondRefOf", "ss"),
    0x5B13: ("CreateField", "tttn"),
    0x5B1F: ("LoadTable", "tttttt"),
    0x5B20: ("Load", "ns"),
    0x5B21: ("Stall", "t"),
    0x5B22: ("Sleep", "t"),
    0x5B23: ("Acquire", "sw"),
    0x5B24: ("Signal", "s"),
    0x5B25: ("Wait", "st"),
    0x5B26: ("Reset", "s"),
    0x5B27: ("Release", "s"),
    0x5B28: ("FromBCD", "ts"),
    0x5B29: ("ToBCD", "ts"),
    0x5B2A: ("Unload", "s"),
    0x5B30: ("Revision", ""),
    0x5B31: ("Debug", ""),
    0x5B32: ("Fatal", "bdt"),
    0x5B33: ("Timer", ""),
    0x5B80: ("OperationRegion", "nbtt"),
    0x5B81: ("Field", "PnbF"),
    0x5B82: ("Device", "PnT"),
    0x5B83: ("Processor", "PnbdbT"),
    0x5B84: ("PowerResource", "PnbwT"),
    0x5B85: ("ThermalZone", "PnT"),
    0x5B86: ("IndexField", "PnnbF"),
    0x5B87: ("BankField", "PnntbF"),
    0x5B88: ("DataTableRegion", "nttt"),
}
_SCOPES = frozenset({"Scope", "Device", "Method", "Processor", "PowerResource", "ThermalZone"})
_WIDTHS = {"b": 1, "w": 2, "d": 4}
_NOTHING = AmlNode("Nothing")


def disassemble(code: bytes, methods: Mapping[str, int] | None = None) -> tuple[AmlNode, ...]:
    r"""Decode AML whole, such as the body of a DSDT or a method's.

    Args:
        code: AML bytes.
        methods: argument counts, 0 .. 7, of methods declared elsewhere, by absolute path such as
            ``\_SB_.INIT``, each segment of four characters. Those that ``code`` declares need not be listed.

    Returns:
        The objects and statements in order. ``kind`` is the name of the ASL operator; ``children`` are its
        operands in AML's order and then what it encloses. A method call is a "Call", another name a "Path", a
        target left out "Nothing", a field unit a "Unit" of so many bits (``name`` None: skipped).

    Raises:
        AmlParseError: truncated or contradictory bytes, nesting deeper than 96, or an unknown opcode. Code
            outside methods that calls a method before its declaration cannot be read.

    Source: ACPI 6.5 §20.2; name search as in §5.3.
    """
    found = dict(methods or {})
    _Reader(code, found, bodies=False).objects(len(code), 0)
    return _Reader(code, found, bodies=True).objects(len(code), 0)


class _Reader(Cursor):
    """A position in AML, the scope it is in, and the methods known so far."""

    max_depth = 96
    subset = "unknown"

    def __init__(self, code: bytes, methods: dict[str, int], *, bodies: bool) -> None:
        super().__init__(code)
        self._methods = methods
        self._bodies = bodies
        self._scope: tuple[str, ...] = ()
        self._references = False

    def object(self, limit: int, depth: int) -> AmlNode:
        """Parse one object, statement or expression."""
        self.check_depth(depth)
        lead = self.code[self.at] if self.at < limit else 0
        if starts_name(self.code[self.at : self.at + 1]):
            return self._name_or_call(limit, depth)
        if 0x60 <= lead <= 0x6E:
            self.byte(limit)
            return AmlNode("Local", value=lead - 0x60) if lead < 0x68 else AmlNode("Arg", value=lead - 0x68)
        if lead in (0x11, 0x12, 0x13):
            return self._sized(limit, depth)
        start = self.at
        opcode = self.opcode(limit)
        if opcode in _OPERATIONS:
            return self._operation(*_OPERATIONS[opcode], limit, depth)
        self.at = start
        return self.data(limit, depth)

    def _operation(self, kind: str, pattern: str, limit: int, depth: int) -> AmlNode:
        end, name, outer = limit, None, self._scope
        children: list[AmlNode] = []
        for letter in pattern:
            if letter == "P":
                end = self.end_of_package(limit)
            elif letter == "n" and name is None:
                name = self.path(end)
            elif letter == "n":
                children.append(AmlNode("Path", value=self.path(end)))
            elif letter in _WIDTHS:
                number = int.from_bytes(self.take(_WIDTHS[letter], end), "little")
                children.append(AmlNode("Integer", value=number))
            elif letter == "t":
                children.append(self.object(end, depth + 1))
            elif letter == "s":
                children.append(self._target(end, depth + 1))
            elif letter == "F":
                children += self._units(end)
            else:
                children += self._enclosed(kind, name, children, end, depth)
        self._scope = outer
        self._declare(kind, name, children)
        return AmlNode(kind, name, children=tuple(children))

    def _enclosed(
        self, kind: str, name: str | None, operands: list[AmlNode], end: int, depth: int
    ) -> tuple[AmlNode, ...]:
        if kind in _SCOPES and name is not None:
            # Before its body is read: a method may call itself.
            self._declare(kind, name, operands)
            self._scope = self._absolute(name)
        if kind == "Method" and not self._bodies:
            self.at = end
        outer, self._references = self._references, False
        found = self.objects(end, depth + 1)
        self._references = outer
        return found

    def _declare(self, kind: str, name: str | None, operands: list[AmlNode]) -> None:
        numbers = [node.value for node in operands[:2] if isinstance(node.value, int)]
        if kind == "Method" and name is not None and numbers:
            self._methods[_joined(self._absolute(name))] = numbers[0] & 7
        if kind == "External" and name is not None and numbers[:1] == [_METHOD_TYPE]:
            self._methods.setdefault(_joined(self._absolute(name)), numbers[1] & 7)

    def _absolute(self, name: str) -> tuple[str, ...]:
        """A name as declared here, as segments from the root."""
        if name.startswith("\\"):
            return tuple(filter(None, name[1:].split(".")))
        stem = name.lstrip("^")
        outer = self._scope[: max(len(self._scope) - (len(name) - len(stem)), 0)]
        return (*outer, *filter(None, stem.split(".")))

    def _arguments_of(self, name: str) -> int | None:
        """The argument count of the method a name leads to; None when it leads to none that is known."""
        if "." in name or name[:1] in ("\\", "^"):
            return self._methods.get(_joined(self._absolute(name)))
        for depth in range(len(self._scope), -1, -1):
            count = self._methods.get(_joined((*self._scope[:depth], name)))
            if count is not None:
                return count
        return None

    def _name_or_call(self, limit: int, depth: int) -> AmlNode:
        name = self.path(limit)
        count = None if self._references else self._arguments_of(name)
        if count is None:
            return AmlNode("Path", value=name)
        if not 0 <= count <= _MAX_ARGUMENTS:
            raise self.fail(f"method {name} with {count} arguments")
        return AmlNode("Call", name, children=tuple(self.object(limit, depth + 1) for _ in range(count)))

    def _target(self, limit: int, depth: int) -> AmlNode:
        """A place to store to, or the name of an object: a name here is no call."""
        if self.code[self.at : self.at + 1] == b"\0" and self.at < limit:
            self.byte(limit)
            return _NOTHING
        if starts_name(self.code[self.at : self.at + 1]):
            return AmlNode("Path", value=self.path(limit))
        return self.object(limit, depth)

    def _sized(self, limit: int, depth: int) -> AmlNode:
        """A buffer or a package; its size is a term, and what is in a package is no call."""
        opcode = self.byte(limit)
        end = self.end_of_package(limit)
        size = AmlNode("Integer", value=self.byte(end)) if opcode == 0x12 else self.object(end, depth + 1)
        if opcode == 0x11:
            data = self.take(end - self.at, end)
            self._check_size(size, len(data))
            return AmlNode("Buffer", value=data, children=(size,))
        outer, self._references = self._references, True
        children = self.objects(end, depth + 1)
        self._references = outer
        self._check_size(size, len(children))
        return AmlNode("Package", children=(size, *children))

    def _check_size(self, size: AmlNode, held: int) -> None:
        if isinstance(size.value, int) and size.kind == "Integer" and size.value < held:
            raise self.fail(f"room for {size.value:#x}, but {held:#x} are there")

    def _units(self, end: int) -> list[AmlNode]:
        """Units of a field list: named, skipped, or a change of access (ACPI 6.5 §20.2.5.2)."""
        units = []
        while self.at < end:
            lead = self.code[self.at]
            if lead == 1:
                self.byte(end)
                units.append(AmlNode("AccessAs", value=int.from_bytes(self.take(2, end), "little")))
                continue
            if lead == 0:
                self.byte(end)
                name = None
            else:
                name = self.segment(end)
            units.append(AmlNode("Unit", name, self.length(end)))
        return units


def _joined(segments: tuple[str, ...]) -> str:
    return "\\" + ".".join(segments)
