"""Historic defects of virtqueue code as changes to the source of the Python twin."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import virtio_queue.testing
from attrs import frozen

FOLDER = Path(virtio_queue.testing.__file__).parent
MODULES = ("_walk", "_twin_ring", "_twin_split", "_twin_packed", "_twin")  # none imports a later one


@frozen
class Change:
    """One replacement in a module of the twin; `old` occurs there once."""

    module: str
    old: str
    new: str


def _in(module: str) -> Callable[[str, str], Change]:
    return lambda old, new: Change(module, old, new)


_twin, _split, _packed, _walk, _ring = (
    _in(name) for name in ("_twin", "_twin_split", "_twin_packed", "_walk", "_twin_ring")
)
_COUNTED = "added, self.num_added = self.num_added, 0"
_KEPT = "added, self.num_added = self.num_added, self.num_added"
_UNASKED = "if True:\n            event = mem.load"
_EVENT = "(self.next_used - event - 1) & U16 < added"

# What each was in real life: docs/virtio-queue-defects.md.
NOTIFICATION = {
    "event-wrap": _split(_EVENT, "event < self.next_used <= event + added"),
    "event-off-by-one": _split(_EVENT, "(self.next_used - event) & U16 < added"),
    "event-batch": _split("min(self.num_added + len(used), MANY)", "min(self.num_added + 1, MANY)"),
    "event-repeat": _split(_COUNTED, _KEPT),
    "event-unasked": _split("if self._regs.event_idx:\n            event = mem.load", _UNASKED),
    "no-interrupt-ignored": _split("added > 0 and not flags & AVAIL_NO_INTERRUPT", "added > 0"),
    "no-recheck": _split("2, MemoryOrder.SEQ_CST) != self.next_avail", "2, MemoryOrder.SEQ_CST) < 0"),
    "event-position": _split("mem.store(event, 2, self.next_avail,", "mem.store(event, 2, self.next_used,"),
    "livelock": _twin(
        "        if self._regs.broken is not None:\n            return False\n        self.check(mem)\n",
        "        self.check(mem)\n",
    ),
}
USED = {
    "used-length-zero": _split("mem.store(element + 4, 4, written)", "mem.store(element + 4, 4, 0)"),
    "used-length-excess": _twin("if written > writable:", "if False:"),
    "used-element-swapped": _split(
        "mem.store(element, 4, head)\n            mem.store(element + 4, 4, written)",
        "mem.store(element, 4, written)\n            mem.store(element + 4, 4, head)",
    ),
    "used-unpopped": _twin("        if refusal is not None:\n            raise ValueError(refusal)\n", ""),
    "used-drift": _twin(
        "            raise ValueError(refusal)\n",
        "            self._ring.next_used = (self._ring.next_used + 1) & U16\n"
        "            raise ValueError(refusal)\n",
    ),
}
STATE = {
    "ring-silent": _twin(
        "        self.check(mem)\n        taken =",
        "        if not self.is_valid(mem):\n            return None\n        taken =",
    ),
    "size": _twin("else is_queue_size(regs.size)", "else is_packed_size(regs.size)"),
    "unbroken": _ring("        self.broken = error\n", ""),
    "num-added-lost": _twin(
        "ring.num_added, ring.popped = state.num_added, state.popped", "ring.popped = state.popped"
    ),
    "breakage-lost": _twin("None if state.broken is None else DriverError(state.broken)", "None"),
    "undo-one": _split("(self.next_avail - count) & U16", "(self.next_avail - 1) & U16"),
}
AVAILABLE = {
    "index-jump": _split("if waiting > room:", "if False:"),
    "in-flight-ignored": _split("max(self._regs.size - self.in_flight, 0)", "self._regs.size"),
    "head-unchecked": _split("if head >= regs.size:", "if False:"),
    "chain-stuck": _split(
        "self.next_avail = (self.next_avail + 1) & U16",
        "self.next_avail = (self.next_avail + (error is None)) & U16",
    ),
    "room-lost": _split(
        "            error = broken\n",
        "            error = broken\n"
        "        except Exception:\n"
        "            self.next_avail = (self.next_avail + 1) & U16\n"
        "            raise\n",
    ),
    "batch-lost": _twin("            if len(batch) == 0:\n                raise\n", "            raise\n"),
}
CHAINS = {
    "next-bound": _walk("if index >= table.entries:", "if index > table.entries:"),
    "truncated": _split("            error = broken\n", "            error = None\n"),
    "head-lost": _walk("DriverError(reason, head=self.head, position", "DriverError(reason, position"),
    "loop": _walk("if table.visited > table.entries:", "if False:"),
    "too-long": _walk("if len(self.segments) == self.size:", "if False:"),
    "unasked": _walk("if not self.indirect:", "if False:"),
    "nested": _walk("if table.indirect:", "if table.indirect and table.visited > 1:"),
    "combined": _walk(
        "        if flags & DESC_NEXT:\n            raise self._fault(Reason.INDIRECT_WITH_NEXT, flags, 0)\n",
        "",
    ),
    "table-size": _walk("if length == 0 or length % DESCRIPTOR.size:", "if length == 0:"),
    "total": _walk(
        "total = sum(accepted.len for accepted in self.segments) + segment.len",
        "total = sum(accepted.len for accepted in self.segments) + segment.len & 0xFFFF_FFFF",
    ),
    "order": _walk("if not segment.writable and self.segments and", "if False and"),
    "memory-end": _walk(
        "if not self.memory.check_range(segment.addr, segment.len):",
        "if not self.memory.check_range(segment.addr, segment.len - 1):",
    ),
    "read-only": _walk("if segment.writable and not self.memory", "if False and not self.memory"),
}
PACKED = {
    "packed-wrap-kept": _packed(
        "self.next_avail = packed_move(self.next_avail, count, regs.size)",
        "self.next_avail = self.next_avail & WRAP | ((self.next_avail & ~WRAP) + count) % regs.size",
    ),
    "packed-used-wrap-kept": _packed(
        "position = packed_move(position, count, self._regs.size)",
        "position = position & WRAP | ((position & ~WRAP) + count) % self._regs.size",
    ),
    "packed-used-flags": _packed("(_STATE if place & WRAP else 0)", "_STATE"),
    "packed-id-is-slot": _packed(
        "mem.store(descriptor + 12, 2, head)", "mem.store(descriptor + 12, 2, place & ~WRAP)"
    ),
    "packed-id-of-first": _packed(
        "count, head = count + 1, last_id", "count, head = count + 1, head if count else last_id"
    ),
    "packed-skip-one": _packed(
        "packed_move(position, count, self._regs.size)", "packed_move(position, 1, self._regs.size)"
    ),
    "packed-event-flat": _packed("behind % (2 * size) < added", "(self.next_used - event - 1) & U16 < added"),
    "packed-event-unasked": _packed("or not self._regs.event_idx or", "or"),
    "packed-whole-lap": _packed(
        "packed_move(self.next_avail, count, regs.size)",
        "packed_move(self.next_avail, count % regs.size, regs.size)",
    ),
    "packed-list-end": _packed("((slot + offset) % self.size)", "min(slot + offset, self.size - 1)"),
    "packed-head-lost": _packed("else _named(fault, head)", "else fault"),
    "packed-silence-ignored": _packed(
        "            return False\n        if kind", "            return True\n        if kind"
    ),
    "packed-counts-chains": _packed("min(self.num_added + count, MANY)", "min(self.num_added + 1, MANY)"),
    "packed-event-repeat": _packed(_COUNTED, _KEPT),
    "packed-no-recheck": _packed("return self._available(mem, MemoryOrder.SEQ_CST)", "return False"),
    "packed-write-flag": _packed("(DESC_WRITE if written else 0)", "DESC_WRITE"),
    "packed-id-twice": _packed("if head in self._held:", "if False:"),
    "packed-indirect-mixed": _packed("if flags & DESC_NEXT or offset:", "if flags & DESC_NEXT:"),
    "packed-held-lost": _twin("ring.restore(state.held)", "ring.restore(state.held[1:])"),
}
IN_ORDER = {
    "in-order-any": _split("self._heads if self._regs.in_order else None", "None"),
    "in-order-short": _twin("and not error and written == room", "and not error"),
    "in-order-broken": _twin("and not error and written == room", "and written == room"),
    "in-order-place": _split("(place % self._regs.size)", "((self.next_used + offset) % self._regs.size)"),
}


def _after(call: str, forgotten: str) -> Change:
    """The new ring that a call of the twin makes, and what is wrong with it."""
    made = f"        new = type(self).{call}\n"
    return _twin(made, f"{made}        {forgotten}\n")


_RESET, _ATTACH = "from_state(reset_ring(self.state()))", "from_state(state_at(self.state(), place), mem)"
PLACE = {
    "reset-ring-features": _after(_RESET, "new._regs.event_idx = False"),
    "packed-reset-wrap": _after(_RESET, "new._ring.next_avail = new._ring.next_used = 0"),
    "packed-reset-held": _after(_RESET, "new._ring.restore(self._ring.held)"),
    "detach-in-flight": _twin(
        'if self.in_flight:\n            raise ValueError(f"cannot detach',
        'if False:\n            raise ValueError(f"cannot detach',
    ),
    "attach-count": _after(_ATTACH, "new._ring.num_added = 0"),
    "attach-wrap": _after(_ATTACH, "new._ring.next_avail &= ~WRAP"),
}
MUTANTS: dict[str, Change] = NOTIFICATION | USED | STATE | AVAILABLE | CHAINS | PACKED | IN_ORDER | PLACE


def load(name: str) -> type:
    """The twin with one defect; the empty name is the twin as it is, in modules of their own all the same.

    Raises:
        KeyError: There is no such defect.
        ValueError: The twin's source has changed, and the defect does not fit any more.
    """
    change = MUTANTS[name] if name else None
    space = f"_mutant_{name.replace('-', '_') or 'none'}"
    for module in MODULES:
        text = (FOLDER / f"{module}.py").read_text()
        if change is not None and change.module == module:
            if text.count(change.old) != 1:
                raise ValueError(f"{name}: {change.old!r} is {text.count(change.old)} times in {module}.py")
            text = text.replace(change.old, change.new)
        for other in MODULES:
            text = text.replace(f"from virtio_queue.testing.{other} ", f"from {space}{other} ")
        loaded = sys.modules[f"{space}{module}"] = types.ModuleType(f"{space}{module}")
        exec(compile(text, f"{module}.py ({name})", "exec"), loaded.__dict__)
    twin: type = loaded.TwinQueue
    return twin
