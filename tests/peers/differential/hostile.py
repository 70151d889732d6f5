"""What a hostile driver makes of an honest script; chance as in `generate`."""

from random import Random

import attrs

from differential.generate import DESCRIPTOR, INDIRECT, NEXT, U16, WRITE, Dice, Row, Writer
from differential.script import (
    BASE,
    END,
    HOLE,
    MAX_SIZE,
    PAGE,
    Complete,
    Decide,
    Disable,
    Enable,
    Pop,
    PopOne,
    Registers,
    Script,
    Step,
    Store,
)


def hostile(random: Random) -> Script:
    """An honest script in which the driver then breaks one to three rules; most of the others still hold.

    Then come chains with a fault each, of most kinds; most scripts end with a ring that no queue can go on
    with, and what the device does about it. Anywhere between it has bad registers for a moment.
    """
    dice = Dice(random)
    writer = Writer(dice)
    script = writer.write()
    steps = list(script.steps)
    for _ in range(1 + dice.below(3)):
        at = 1 + dice.below(len(steps))
        steps[at:at] = _break(dice, script, steps, at)
    steps += _faults(dice, script, steps)
    if dice.chance(0.9):
        steps += [
            *_break_ring(dice, script, steps),
            Pop(32),
            Enable(),
            PopOne(),
            Complete(0, 0),
            Disable(),
            Decide(),
        ]
    return bad_features(dice, bad_registers(dice, attrs.evolve(script, steps=tuple(steps))))


def bad_registers(dice: Dice, script: Script) -> Script:
    """Bad registers now and then between two steps; few scripts have them all the time."""
    good = Registers(script.size, script.desc_table, script.avail_ring, script.used_ring)
    steps = list(script.steps)
    for kind in range(5):
        if dice.chance(0.6):
            steps.insert(dice.below(len(steps) + 1), _bad_register(dice, good, kind))
    script = attrs.evolve(script, steps=tuple(steps))
    if dice.chance(0.08):
        script = attrs.evolve(script, **_bad_register(dice, good, dice.below(4))._asdict(), start=0)
    return script


def bad_features(dice: Dice, script: Script) -> Script:
    """A driver that uses indirect tables without having asked for them."""
    return attrs.evolve(script, indirect=False) if dice.chance(0.3) else script


AREA, LONG = HOLE - 64, BASE + 0xD00


def _faults(dice: Dice, script: Script, steps: list[Step]) -> list[Step]:
    """One chain after the other, each with a fault of its own that the ring survives."""
    done: list[Step] = [Pop(32)]
    for kind in range(10):
        if not dice.chance(0.8):
            continue
        chain, table = _fault(dice, script.size, kind)
        now = _announced(script, [*steps, *done])
        done += [
            Store(LONG, b"".join(DESCRIPTOR.pack(*row) for row in table or [(0, 0, 0, 0)])),
            Store(script.desc_table, b"".join(DESCRIPTOR.pack(*row) for row in chain)),
            Store(script.avail_ring + 4 + 2 * (now % script.size), U16.pack(0)),
            Store(script.avail_ring + 2, U16.pack((now + 1) & 0xFFFF)),
            PopOne(),
            Complete(0, 0),
        ]
    return done


def _fault(dice: Dice, size: int, kind: int) -> tuple[list[Row], list[Row]]:
    """Descriptors from entry 0 on, and those of an indirect table at LONG."""
    sound = AREA, 2, 0, 0
    pair = [(AREA, 2, NEXT, 1), sound]
    match kind:
        case 0:
            return [(AREA, 2, NEXT, dice.pick(size, 0xFFFF))], []
        case 1:
            return [(AREA, 2, NEXT, 0)], []
        case 2:
            return _in_table([(AREA, 2, WRITE | NEXT, 1), sound], size)
        case 3:
            return _in_table([(AREA, 2, NEXT, 1), (AREA, 0xFFFF_FFFF, 0, 0)], size)
        case 4:
            return [(dice.pick(HOLE, HOLE - 1, END), 2, 0, 0)], []
        case 5:
            return [(dice.pick(HOLE - 24, HOLE, END - 8), 32, INDIRECT, 0)], []
        case 6:
            return [(LONG, dice.pick(17, 0, 8), INDIRECT, 0)], pair
        case 7:
            return [(LONG, 32, INDIRECT | NEXT, 0)], pair
        case 8:
            return [(LONG, 32, INDIRECT, 0)], [(AREA, 2, NEXT, 1), (LONG, 16, INDIRECT, 0)]
    long = [(AREA, 2, NEXT, index + 1) for index in range(size)]
    return [(LONG, 16 * (size + 1), INDIRECT, 0)], [*long, sound]


def _in_table(rows: list[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Two descriptors: in the queue itself, or indirect where it has only one."""
    return (rows, []) if size > 1 else ([(LONG, 16 * len(rows), INDIRECT, 0)], rows)


def _announced(script: Script, steps: list[Step]) -> int:
    """The index that the driver stored last."""
    known = [step for step in steps if isinstance(step, Store) and step.addr == script.avail_ring + 2]
    return U16.unpack(known[-1].data)[0] if known else script.start


def compatible(random: Random) -> Script:
    """As `hostile`, to queues that walk chains as the crate does."""
    return attrs.evolve(hostile(random), compatible=True)


def _bad_register(dice: Dice, good: Registers, kind: int) -> Registers:
    """Not ready, no size, a part misaligned or outside memory, or a ring too small for what is out."""
    _size, desc, avail, used, _ready = good
    part = dice.below(3)
    match kind:
        case 0:
            return good._replace(ready=False)
        case 1:
            return good._replace(size=dice.pick(2 * MAX_SIZE, 0, 3, 0xFFFF))
        case 2:
            misaligned = {"desc_table": desc + 8}, {"avail_ring": avail + 1}, {"used_ring": used + 2}
            return good._replace(**misaligned[part])
        case 3:
            ends = dice.pick(HOLE, HOLE - 4, 0), dice.pick(END, END - 4, (1 << 64) - 4)
            outside = {"desc_table": HOLE}, {"avail_ring": ends[0]}, {"used_ring": ends[1]}
            return good._replace(**outside[part])
    return good._replace(size=1)


def _break(dice: Dice, script: Script, steps: list[Step], at: int) -> list[Step]:
    """Stores that break a rule; most change a descriptor that was stored shortly before."""
    kind = dice.below(16)
    if kind < 12:
        rows = [step for step in steps[:at] if isinstance(step, Store) and len(step.data) == 16]
        if rows:
            return _break_row(dice, script, rows[-1 - dice.below(min(len(rows), 6))])
    if kind < 13:
        return _break_ring(dice, script, steps[:at])
    # Any two bytes of the rings, the used ring too.
    where = script.desc_table + 2 * dice.below((script.used_ring + 8 * script.size - script.desc_table) // 2)
    return [Store(where, U16.pack(dice.pick(0, 1, 2, 3, 4, 5, 7, 0xFFFF)))]


def _break_ring(dice: Dice, script: Script, steps: list[Step]) -> list[Step]:
    """An index that runs ahead or back, or a head that is no descriptor's, in every slot."""
    now = _announced(script, steps)
    if dice.chance(0.42):
        heads = U16.pack(dice.pick(script.size, 0xFFFF, 0x8000)) * script.size
        return [
            Store(script.avail_ring + 4, heads),
            Store(script.avail_ring + 2, U16.pack((now + 1) & 0xFFFF)),
        ]
    ahead = dice.pick(script.size, script.size + 1, 0xFFFF, 0x8000, 2)
    return [Store(script.avail_ring + 2, U16.pack((now + ahead) & 0xFFFF))]


def _break_row(dice: Dice, script: Script, row: Store) -> list[Step]:
    addr, length, flags, following = DESCRIPTOR.unpack(row.data)
    steps: list[Step] = []
    match dice.below(10):
        case 0:
            flags, following = flags | NEXT, dice.pick(script.size, 0xFFFF, 16)
        case 1 | 2:
            flags, following = flags | NEXT, dice.below(script.size)
        case 3:
            flags ^= WRITE
        case 4:
            addr = dice.pick(HOLE, HOLE - 2, END, BASE - 1, 0, (1 << 64) - 1, 1 << 63)
        case 5 if flags & INDIRECT:
            length = dice.pick(0, 8, 17, 0xFFFF_FFF0)
        case 5:
            length = dice.pick(0xFFFF_FFFF, 0x8000_0000, 2 * PAGE, 17, 0, 16, 0xFFFF_FFFF)
        case 6:
            flags |= INDIRECT
        case 7:
            flags = flags & ~NEXT | INDIRECT
            addr, length = BASE + 0x400 + dice.below(64), 16 * (1 + dice.below(40))
        case 8:
            # A long table: each entry leads to the one after it.
            entries = script.size + dice.below(3)
            addr, length, flags = BASE + 0xD00, 16 * entries, INDIRECT
            table = [(HOLE - 64, 2, NEXT, index + 1) for index in range(entries - 1)] + [(HOLE - 32, 1, 0, 0)]
            steps.append(Store(addr, b"".join(DESCRIPTOR.pack(*entry) for entry in table)))
        case 9:
            addr, length, flags = dice.pick(HOLE - 24, HOLE, END - 8), 32, INDIRECT
    return [*steps, Store(row.addr, DESCRIPTOR.pack(addr, length, flags, following))]
