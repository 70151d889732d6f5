"""Scripts of drivers of packed rings; the shape of a script and its chances are those of `generate`."""

import struct
from random import Random

import attrs
from virtio_queue._layout import ring_position

from differential.generate import INDIRECT, NEXT, WRITE, Dice, Writer
from differential.hostile import AREA, LONG, bad_features, bad_registers
from differential.script import (
    BASE,
    END,
    HOLE,
    PAGE,
    Complete,
    Decide,
    Disable,
    Enable,
    Pop,
    PopOne,
    Reset,
    Script,
    Step,
    Store,
)

Row = tuple[int, int, int, int]

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
        self.steps.append(_laid_out(self.desc, self.size, self.start))
        self._store(self.used_ring, bytes(4))
        self._suppress()

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
            slot, wrap = _position(self.next, self.size)
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
    """An honest script in which the driver then breaks one to three rules.

    Then the queue is reset, and lists come with a fault each, of most kinds; then rings, of most kinds, with
    which no queue can go on before another reset. Anywhere between it has bad registers for a moment.
    """
    dice = Dice(random)
    script = PackedWriter(dice).write()
    steps = list(script.steps)
    for _ in range(1 + dice.below(3)):
        at = 3 + dice.below(len(steps) - 2)
        steps[at:at] = _break(dice, script, steps[:at])
    steps += _faults(dice, script)
    for kind in range(3):
        if dice.chance(0.6):
            steps += _break_ring(dice, script, kind)
    return bad_features(dice, bad_registers(dice, attrs.evolve(script, steps=tuple(steps))))


def _position(count: int, size: int) -> tuple[int, bool]:
    """Slot and wrap counter behind so many descriptors."""
    position = ring_position(count, size, packed=True)
    return position & ~WRAP, bool(position & WRAP)


def _laid_out(desc: int, size: int, start: int) -> Store:
    """As if all of it had been used: this lap up to where it starts, the lap before from there on."""
    slot, wrap = _position(start, size)
    laps = (AVAIL | USED if wrap == (index < slot) else 0 for index in range(size))
    return Store(desc, b"".join(_BODY.pack(0, 0, 0) + _U16.pack(flags) for flags in laps))


def _fresh(script: Script) -> list[Step]:
    return [Reset(), _laid_out(script.desc_table, script.size, script.start)]


def _faults(dice: Dice, script: Script) -> list[Step]:
    """One list after the other, each with a fault of its own that the ring survives."""
    done, placed = _fresh(script), script.start
    for kind in range(8):
        rows, table = _fault(dice, script.size, kind)
        if not dice.chance(0.8) or len(rows) > script.size:
            continue
        done.append(Store(LONG, b"".join(_BODY.pack(*row[:3]) + _U16.pack(row[3]) for row in table)))
        for addr, length, head, flags in rows:
            slot, wrap = _position(placed, script.size)
            word = _U16.pack(flags | (AVAIL if wrap else USED))
            done.append(Store(script.desc_table + 16 * slot, _BODY.pack(addr, length, head) + word))
            placed += 1
        done += [PopOne(), Complete(0, 0)]
    return [*done, Decide()]


def _fault(dice: Dice, size: int, kind: int) -> tuple[list[Row], list[Row]]:
    """Elements of a list as (address, length, id, flags), and those of an indirect table at LONG."""
    sound = AREA, 2, 0, 0
    match kind:
        case 0:
            return _in_table([(AREA, 2, 0, WRITE), sound], size)
        case 1:
            return _in_table([sound, (AREA, 0xFFFF_FFFF, 0, 0)], size)
        case 2:
            return [(dice.pick(HOLE, HOLE - 1, END), 2, 0, 0)], []
        case 3:
            return [(dice.pick(HOLE - 24, HOLE, END - 8), 32, 0, INDIRECT)], []
        case 4:
            return [(LONG, dice.pick(17, 0, 8), 0, INDIRECT)], [sound, sound]
        case 5:
            return [(LONG, 32, 0, INDIRECT | NEXT), sound], [sound, sound]
        case 6:
            return [(AREA, 2, 0, NEXT), (LONG, 32, 0, INDIRECT)], [sound, sound]
    return [(LONG, 16 * (size + 1), 0, INDIRECT)], [sound] * (size + 1)


def _in_table(rows: list[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Two elements: in the ring itself, or in a table where it has only one."""
    if size == 1:
        return [(LONG, 16 * len(rows), 0, INDIRECT)], rows
    first, second = rows
    return [(*first[:3], first[3] | NEXT), second], []


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


def _break_ring(dice: Dice, script: Script, kind: int) -> list[Step]:
    """After a reset every element is available, lap after lap: lists with one id, one each, or endless."""
    size = script.size
    heads = [dice.pick(0, size - 1)] * size if kind == 0 else range(size)
    more = NEXT if kind == 2 else 0
    steps = _fresh(script)
    for wrap in (AVAIL, USED, AVAIL):
        ring = (_BODY.pack(HOLE - 64, 4, head) + _U16.pack(wrap | more) for head in heads)
        steps += [Store(script.desc_table, b"".join(ring)), Pop(32)]
    return [*steps, Enable(), PopOne(), Disable(), Decide()]
