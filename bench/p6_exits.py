"""P6: a KVM exit answered by the native loop, beside the same loop in plain C."""

from typing import Final

import tiny
import yardsticks
from harness import Options, Row, Served, compare, interleave

FLOOR: Final = "C floor"
_EXITS: Final = 1000


def run(options: Options) -> list[Row]:
    """Measure exits that never reach Python."""
    count = max(2, options.work(_EXITS))
    guest = tiny.code(count)
    (floor,) = yardsticks.floor("exits")
    with tiny.Ours(guest, native=True) as ours, Served([floor, guest.hex(), str(count), "0"]) as bare:
        contenders = {"ours": lambda: ours.round() / count, FLOOR: lambda: bare.ask(1)[0]}
        # Many short rounds: what disturbs one of them does not move the median.
        times = interleave(contenders, 5 * options.rounds, progress="P6 native exits")
    what = f"port write answered by the native loop, {count} in a row"
    return [compare("P6", what, times["ours"], FLOOR, times[FLOOR], unit="ns", goal=1.02)]
