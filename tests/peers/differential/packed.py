"""Scripts of drivers of packed rings; the shape of a script and its chances are those of `generate`."""

import struct
from random import Random

import attrs
from virtio_queue._layout import ring_position

from differential.generate import INDIRECT, NEXT, WRITE, Dice, Writer
from differential.script import (
    BASE,
    END,
    HOLE,
    PAGE,
    Decide,
    Disable,
    Enable,
    Pop,
    PopOne,
    Script,
    Step,
    Store,
)

_BODY = struct.Struct("<QIH")
_U16 = struct.Struct("<H")
_EVENT = struct.Struct("<HH")
AVAIL, USED = 1 << 7, 1 << 15
WRAP = 1 << 15


class PackedWriter(Writer):
    """As `Writer`, on a packed ring; `used` and `start` count descriptors."""

    packed = True
    sizes = (8, 4, 16, 7, 2, 5, 1, 3)

    def _begin(self) -> int:
        return self.dice.pick(0, self.dice.below(2 * self.size))

    def _place(self) -> None:
        dice = self.dice
        avail = 16 * self.size + 4 * dice.below(3)
        used = avail + 4 + 4 * dice.below(3)
        base = BASE + 16 * dice.below(8)
        if dice.chance(0.4):
            base = BASE + PAGE - 16 * (1 + dice.below(used // 16))
        self.desc, self.avail, self.used_ring = base, base + avail, base + used

    def _set_up(self) -> None:
        self.ids = list(range(self.size))
        self.next = self.start  # descriptors that were placed
        self.held_back: Store | None = None
        slot, wrap = self._position(self.start)
        # As if all of it had been used: this lap up to here, the lap before from here on.
        laps = [AVAIL | USED if wrap == (index < slot) else 0 for index in range(self.size)]
        self._store(self.desc, b"".join(_BODY.pack(0, 0, 0) + _U16.pack(flags) for flags in laps))
        self._store(self.used_ring, bytes(4))
        self._suppress()

    def _position(self, count: int) -> tuple[int, bool]:
        position = ring_position(count, self.size, packed=True)
        return position & ~WRAP, bool(position & WRAP)

    def _announce(self) -> None:
        self.announced = self.published
        if self.held_back is not None:
            self.steps.append(self.held_back)
            self.held_back = None

    def _put(self, rows: list[tuple[int, int, int]], indirect: bool) -> tuple[int, list[int]]:
        head = self.ids.pop(self.dice.below(len(self.ids)))
        if indirect:
            table = self._table(16 * len(rows))
            noise = self.dice.pick(0, NEXT)  # not looked at in a table
            entries = (_BODY.pack(addr, size, 0) + _U16.pack(flags | noise) for addr, size, flags in rows)
            self._store(table, b"".join(entries))
            rows = [(table, 16 * len(rows), INDIRECT)]
        for offset, (addr, length, kind) in enumerate(rows):
            slot, wrap = self._position(self.next)
            flags = kind | (AVAIL if wrap else USED) | (NEXT if offset < len(rows) - 1 else 0)
            self._store(self.desc + 16 * slot, _BODY.pack(addr, length, head))
            store = Store(self.desc + 16 * slot + 14, _U16.pack(flags))
            if self.held_back is None:
                self.held_back = store
            else:
                self.steps.append(store)
            self.next += 1
        return head, [self.free.pop() for _ in rows]

    def _give_back(self) -> tuple[int, int]:
        chain = self.held[which := self.dice.below(min(len(self.held), 4))]
        del self.held[which]
        self.free += chain.taken
        self.ids.append(chain.head)
        self.used += len(chain.taken)
        return which, self.dice.below(chain.room + 1)

    def _suppress(self) -> None:
        kind = self.dice.pick(2, 2, 0, 1) if self.event_idx else self.dice.pick(0, 1)
        position = ring_position(self.used + self.dice.pick(0, 1, 2, self.size), self.size, packed=True)
        self._store(self.avail, _EVENT.pack(position if kind == 2 else 0, kind))


def honest(random: Random) -> Script:
    """A script in which the driver keeps every rule."""
    return PackedWriter(Dice(random)).write()


def hostile(random: Random) -> Script:
    """An honest script in which the driver then breaks one to four rules; some end with a broken ring."""
    dice = Dice(random)
    script = PackedWriter(dice).write()
    steps = list(script.steps)
    for _ in range(1 + dice.below(4)):
        at = 3 + dice.below(len(steps) - 2)
        steps[at:at] = _break(dice, script, steps[:at])
    if dice.chance(0.4):
        steps += [*_break_ring(dice, script), Pop(32), Enable(), PopOne(), Disable(), Decide()]
    script = attrs.evolve(script, steps=tuple(steps))
    if dice.chance(0.08):
        script = _bad_register(dice, script)
    return attrs.evolve(script, indirect=False) if dice.chance(0.08) else script


def _bad_register(dice: Dice, script: Script) -> Script:
    changes = (
        {"ready": False},
        {"size": dice.pick(0, 17, 0xFFFF), "start": 0},
        {"desc_table": dice.pick(script.desc_table + 8, HOLE, END - 16 & ~15)},
        {"avail_ring": dice.pick(script.avail_ring + 2, HOLE, 0)},
        {"used_ring": dice.pick(script.used_ring + 1, END - 2, (1 << 64) - 4)},
    )
    return attrs.evolve(script, **changes[dice.below(len(changes))])


def _break(dice: Dice, script: Script, steps: list[Step]) -> list[Step]:
    """A change to a descriptor that was stored shortly before, or to any two bytes of the ring."""
    bodies = [step for step in steps if isinstance(step, Store) and len(step.data) == 14]
    kind = dice.below(8)
    if bodies and kind < 6:
        body = bodies[-1 - dice.below(min(len(bodies), 6))]
        return _break_body(dice, script, body)
    if kind < 7:
        return [Store(script.avail_ring, _EVENT.pack(dice.below(0x10000), dice.pick(3, 2, 0, 0xFFFF)))]
    where = script.desc_table + 2 * dice.below(8 * script.size)
    return [Store(where, _U16.pack(dice.pick(0, AVAIL, USED, AVAIL | USED, NEXT | AVAIL, 0xFFFF)))]


def _break_body(dice: Dice, script: Script, body: Store) -> list[Step]:
    addr, length, head = _BODY.unpack(body.data)
    wrap = dice.pick(AVAIL, USED)
    kind = dice.pick(NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT)
    match dice.below(9):
        case 0 | 1:
            return [Store(body.addr + 14, _U16.pack(wrap | kind))]
        case 2:
            addr = dice.pick(HOLE, HOLE - 2, END, BASE - 1, 0, (1 << 64) - 1, 1 << 63)
        case 3 | 4:
            length = dice.pick(0xFFFF_FFFF, 0x8000_0000, 2 * PAGE, 17, 0, 16, 0xFFFF_FFFF)
        case 5:
            head = dice.pick(0, 1, script.size, 0xFFFF)
        case 6:
            # A table that is longer than the ring, or goes on from readable to writable and back.
            entries = script.size + dice.below(3)
            rows = [
                _BODY.pack(HOLE - 64, 2, 0) + _U16.pack(dice.pick(0, 0, 0, WRITE)) for _ in range(entries)
            ]
            addr, length = BASE + 0xD00, 16 * entries
            body = Store(body.addr, _BODY.pack(addr, length, head))
            return [Store(addr, b"".join(rows)), body, _table(body, wrap)]
        case 7:
            addr, length = dice.pick(HOLE - 24, HOLE, END - 8), dice.pick(32, 0, 24)
            return [Store(body.addr, _BODY.pack(addr, length, head)), _table(body, wrap)]
        case 8:
            return [Store(body.addr, _BODY.pack(addr, length, head)), _table(body, wrap)]
    return [Store(body.addr, _BODY.pack(addr, length, head))]


def _table(body: Store, wrap: int) -> Store:
    return Store(body.addr + 14, _U16.pack(INDIRECT | wrap))


def _break_ring(dice: Dice, script: Script) -> list[Step]:
    """Every element available at once, in this lap and the next, with one id, or in a list without an end."""
    more, head = dice.pick(0, NEXT), dice.pick(0, script.size - 1)
    laps = (_BODY.pack(HOLE - 64, 4, head) + _U16.pack(wrap | more) for wrap in (AVAIL, USED))
    return [step for element in laps for step in (Store(script.desc_table, element * script.size), Pop(32))]
