"""Scripts of honest drivers.

All is drawn from a `random.Random`: a seeded one for bulk, or Hypothesis's (`st.randoms`), which shrinks.
A draw near 0 is the plain choice, so that it shrinks towards plain scripts.
"""

import struct
from random import Random

import attrs

from differential.script import (
    BASE,
    END,
    HOLE,
    PAGE,
    REGIONS,
    Complete,
    CompleteBatch,
    Decide,
    Disable,
    Enable,
    Gather,
    Pop,
    PopOne,
    Reset,
    Restore,
    Scatter,
    Script,
    Step,
    Store,
    Undo,
)

DESCRIPTOR = struct.Struct("<QIHH")
U16 = struct.Struct("<H")
NEXT, WRITE, INDIRECT = 1, 2, 4
_TABLES = (BASE + 0x400, BASE + 0xD00)
_ROUNDS = 30

Row = tuple[int, int, int, int]


class Dice:
    """Small choices out of one source."""

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def below(self, limit: int) -> int:
        """0 to `limit` - 1."""
        return int(self._random() * limit)

    def chance(self, share: float) -> bool:
        """True so often; the plain choice is False."""
        return self._random() > 1 - share

    def pick(self, *options: int) -> int:
        """One of them; the first is the plain one."""
        return options[int(self._random() * len(options))]


@attrs.define
class _Chain:
    """What the driver knows of a chain that is out: its descriptors, and how many bytes may be written."""

    head: int
    taken: list[int]
    room: int


def honest(random: Random) -> Script:
    """A script in which the driver keeps every rule."""
    return Writer(Dice(random)).write()


_ROUND = (
    *["_pop"] * 6,
    *["_publish"] * 6,
    *["_complete"] * 8,
    *["_decide"] * 3,
    *["_streams"] * 7,
    *["_suppress"] * 1,
    *["_undo"] * 6,
    *["_kicks"] * 4,
    *["_restore"] * 2,
)


class Writer:
    """Plays both sides while it writes: a driver that keeps the rules knows what the device gave back."""

    packed = False
    sizes = (8, 4, 16, 2, 8, 1)

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.size = dice.pick(*self.sizes)
        self.event_idx = dice.chance(0.5)
        self.indirect = dice.chance(0.8)
        self.start = self._begin()
        self._place()
        self.table = _TABLES[0] + dice.below(32)
        self.steps: list[Step] = []
        self._start_over()

    def _start_over(self) -> None:
        """Nobody has a chain, and the ring is to be laid out."""
        self.free = list(range(self.size))
        self.waiting: list[_Chain] = []
        self.held: list[_Chain] = []
        self.order: list[_Chain] = []  # as they were popped, without those given back to the ring
        self.published = self.announced = self.used = self.start
        self._set_up()

    def _begin(self) -> int:
        near = 0xFFFF - self.dice.below(2)
        return self.dice.pick(0, near, near, near, near, self.dice.below(0x10000))

    def _set_up(self) -> None:
        """Flags, index and event of a driver that has just begun, or has been at it for long."""
        event = self.dice.pick(self.start, self.start + 1, self.start + 0x8000) & 0xFFFF
        self._store(self.avail, U16.pack(self.dice.pick(0, 0, 1)) + U16.pack(self.start))
        self._store(self.avail + 4 + 2 * self.size, U16.pack(event))

    def _place(self) -> None:
        """Somewhere in the first region; now and then over its end, into the next one."""
        dice, size = self.dice, self.size
        gaps = dice.below(3), dice.below(3)
        avail = 16 * size + 2 * gaps[0]
        used = -(-(avail + 6 + 2 * size) // 4) * 4 + 4 * gaps[1]
        total = used + 6 + 8 * size
        base = BASE + 16 * dice.below(8)
        if dice.chance(0.4):
            base = BASE + PAGE - 16 * (1 + dice.below(total // 16))
        self.desc, self.avail, self.used_ring = base, base + avail, base + used

    def write(self) -> Script:
        dice = self.dice
        self._publish()
        for _ in range(8 + dice.below(_ROUNDS)):
            self._round()
        if dice.chance(0.4):
            self.steps.append(Reset())
            self._start_over()
            self._publish()
        for _ in range(dice.below(3)):
            self._pop()
            self._complete()
        rings, kinds = (
            (self.desc, self.avail, self.used_ring),
            (self.event_idx, self.indirect, True, self.packed),
        )
        return Script(self.size, *rings, self.start, tuple(self.steps), *kinds)

    def _round(self) -> None:
        getattr(self, _ROUND[self.dice.below(len(_ROUND))])()

    def _store(self, addr: int, data: bytes) -> None:
        self.steps.append(Store(addr, data))

    def _publish(self) -> None:
        """One to three chains, announced together; sometimes the announcement waits for the next time."""
        for _ in range(1 + self.dice.below(3)):
            if self.free:
                self._add()
        if not self.dice.chance(0.1):
            self._announce()

    def _announce(self) -> None:
        self.announced = self.published
        self._store(self.avail + 2, U16.pack(self.announced))

    def _add(self) -> None:
        dice = self.dice
        indirect = self.indirect and dice.chance(0.5)
        count = 1 + dice.below(min(self.size if indirect else len(self.free), 5))
        readable = dice.below(count + 1)
        rows = [(*self._buffer(), WRITE if index >= readable else 0) for index in range(count)]
        head, taken = self._put(rows, indirect)
        self.published = (self.published + 1) & 0xFFFF
        self.waiting.append(_Chain(head, taken, sum(length for _, length, flags in rows if flags)))

    def _put(self, rows: list[tuple[int, int, int]], indirect: bool) -> tuple[int, list[int]]:
        """Write a chain; returns its name and the descriptors that it takes."""
        count, dice = len(rows), self.dice
        if indirect:
            taken = [self._take()]
            table = self._table(16 * count)
            self._rows(table, list(range(count)), rows)
            self._store(
                self.desc + 16 * taken[0], DESCRIPTOR.pack(table, 16 * count, INDIRECT, dice.below(3))
            )
        else:
            taken = [self._take() for _ in rows]
            self._rows(self.desc, taken, rows)
        self._store(self.avail + 4 + 2 * (self.published % self.size), U16.pack(taken[0]))
        return taken[0], taken

    def _take(self) -> int:
        return self.free.pop(self.dice.below(len(self.free)))

    def _table(self, size: int) -> int:
        """Room for an indirect table; any alignment will do."""
        if self.table + size > _TABLES[1]:
            self.table = _TABLES[0] + self.dice.below(16)
        self.table += size
        return self.table - size

    def _rows(self, table: int, indices: list[int], rows: list[tuple[int, int, int]]) -> None:
        for position, (index, (addr, length, flags)) in enumerate(zip(indices, rows, strict=True)):
            last = position == len(rows) - 1
            row = addr, length, flags | (0 if last else NEXT), 0 if last else indices[position + 1]
            self._store(table + 16 * index, DESCRIPTOR.pack(*row))

    def _buffer(self) -> tuple[int, int]:
        """Bytes behind everything else, in the second region or the third; sometimes up to the very end."""
        dice = self.dice
        length = dice.pick(4, 1, 16, 60, 0, 300)
        base, end = (dice.pick(1, 0) and (BASE + PAGE + 0x200, HOLE)) or (HOLE + PAGE, END)
        if dice.chance(0.1):
            return end - length, length
        return base + dice.below(end - base - length), length

    def _pop(self) -> None:
        if self.dice.chance(0.25):
            most = 1
            self.steps.append(PopOne())
        else:
            most = self.dice.pick(32, 1, 2, 3)
            self.steps.append(Pop(most))
        visible = len(self.waiting) - ((self.published - self.announced) & 0xFFFF)
        count = min(most, visible)
        self.held += self.waiting[:count]
        self.order += self.waiting[:count]
        del self.waiting[:count]

    def _complete(self) -> None:
        if not self.held:
            return
        if self.dice.chance(0.4):
            self.steps.append(
                CompleteBatch(tuple(self._give_back() for _ in range(1 + self.dice.below(3)) if self.held))
            )
        else:
            self.steps.append(Complete(*self._give_back()))

    def _give_back(self) -> tuple[int, int]:
        which = self.dice.below(min(len(self.held), 4))
        chain = self.held.pop(which)
        self.free += chain.taken
        self.used = (self.used + 1) & 0xFFFF
        return which, self.dice.below(chain.room + 1)

    def _suppress(self) -> None:
        """The driver says what it wants to hear of: everything, nothing, or (event index) something later."""
        dice = self.dice
        if self.event_idx:
            event = (self.used + dice.pick(0, 0x8000, 1, 2, 0xFFFF)) & 0xFFFF
            self._store(self.avail + 4 + 2 * self.size, U16.pack(event))
        else:
            self._store(self.avail, U16.pack(dice.pick(1, 0)))

    def _decide(self) -> None:
        self._complete()
        self.steps.append(Decide())

    def _undo(self) -> None:
        possible = 0
        for chain in reversed(self.order):
            if not any(chain is other for other in self.held):
                break
            possible += 1
        if possible:
            count = 1 + self.dice.below(possible)
            self.steps.append(Undo(count))
            self.waiting[:0] = self.order[-count:]
            del self.order[-count:], self.held[-count:]

    def _kicks(self) -> None:
        self.steps.append(Enable() if self.dice.chance(0.5) else Disable())

    def _restore(self) -> None:
        self.steps.append(Restore())

    def _streams(self) -> None:
        if self.held:
            which = self.dice.below(len(self.held))
            self.steps.append(Gather(which))
            self.steps.append(Scatter(which, self.dice.below(256)))


assert all(size == PAGE for _, size in REGIONS)
