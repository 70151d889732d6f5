"""P6: a KVM exit answered by the native loop, beside the same loop in plain C; and what tracing it costs."""

import tempfile
from typing import Final

import tiny
import yardsticks
from harness import Options, Row, Served, compare, interleave

FLOOR: Final = "C floor"
PLAIN: Final = "not traced"
_EXITS: Final = 1000


def run(options: Options) -> list[Row]:
    """Measure exits that never reach Python."""
    count = max(2, options.work(_EXITS))
    guest = tiny.code(count)
    (floor,) = yardsticks.floor("exits")
    with (
        tiny.Ours(guest, native=True) as ours,
        tiny.Ours(guest, native=True) as traced,
        Served([floor, guest.hex(), str(count), "0"]) as bare,
        tempfile.TemporaryFile(buffering=0) as spool,
    ):
        traced.vcpu.fd.trace_exits(spool.write)
        contenders = {
            PLAIN: lambda: ours.round() / count,
            "traced": lambda: traced.round() / count,
            FLOOR: lambda: bare.ask(1)[0],
        }
        # Many short rounds: what disturbs one of them does not move the median.
        times = interleave(contenders, 5 * options.rounds, progress="P6 native exits")
        traced.vcpu.fd.trace_exits(None)
    what = f"port write answered by the native loop, {count} in a row"
    return [
        compare("P6", what, times[PLAIN], FLOOR, times[FLOOR], unit="ns", goal=1.02),
        compare("P6", f"{what}, traced", times["traced"], PLAIN, times[PLAIN], unit="ns", goal=None),
    ]
