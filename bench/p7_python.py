"""P7: a KVM exit answered by a device in Python, alone and beside a busy Python thread."""

import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import tiny
import yardsticks
from harness import Options, Row, Served, compare, interleave

FLOOR: Final = "C floor"
GIL: Final = "C extension that only takes the GIL back"
QUIET: Final = "undisturbed"
MAY_COST: Final = 2000.0  # ns that Python may add
INTERVALS: Final = (0.005, 0.0001)  # seconds: the interpreter's default, and what README.md advises
_EXITS: Final = 1000
_BUSY_EXITS: Final = 200
_BUSY_ROUNDS: Final = 2  # of them in a round of `interleave`


def run(options: Options) -> list[Row]:
    """Measure all of it."""
    rows = _alone(options)
    for interval in INTERVALS:
        rows += _beside(options, interval)
    return rows


def _alone(options: Options) -> list[Row]:
    count = max(2, options.work(_EXITS))
    guest = tiny.code(count)
    (floor,) = yardsticks.floor("exits")
    with tiny.Ours(guest, native=False) as ours, Served([floor, guest.hex(), str(count), "0"]) as bare:
        contenders = {"ours": lambda: ours.round() / count, FLOOR: lambda: bare.ask(1)[0]}
        times = interleave(contenders, 3 * options.rounds, progress="P7 alone")
    what = f"port write answered by a Python device, {count} in a row"
    name = f"{FLOOR} + 2 us"
    return [
        compare("P7", what, times["ours"], name, times[FLOOR], unit="ns", goal=1.0, plus=MAY_COST),
        compare("P7", what, times["ours"], FLOOR, times[FLOOR], unit="ns", goal=None),
    ]


@contextmanager
def busy(interval: float) -> Iterator[None]:
    """Keep another Python thread computing, with `interval` seconds between forced switches."""
    stop = False

    def spin() -> None:
        while not stop:
            pass

    before = sys.getswitchinterval()
    thread = threading.Thread(target=spin)
    thread.start()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        stop = True
        thread.join()


class _Latencies:
    """Distances between the exits of rounds, as the guest sees them."""

    def __init__(self, vm: tiny.Ours, count: int, play: Callable[[], object]) -> None:
        self._vm, self._count, self._play = vm, count, play
        self._scale = vm.ns_per_tick()
        self.percentiles: list[tuple[float, float, float]] = []

    def round(self) -> float:
        ticks: list[int] = []
        for _ in range(_BUSY_ROUNDS):
            self._play()
            ticks += self._vm.stamps(self._count)
        p50, p99, worst = tiny.percentiles(sorted(ticks))
        self.percentiles.append((p50 * self._scale, p99 * self._scale, worst * self._scale))
        return p50 * self._scale


def _beside(options: Options, interval: float) -> list[Row]:
    count = max(10, options.work(_BUSY_EXITS))
    guest = tiny.code(count, stamps=True)
    gil = yardsticks.extension("gil")
    rounds = max(1, options.rounds // 2)
    with (
        tiny.Ours(guest, native=True) as native,
        tiny.Ours(guest, native=False) as python,
        tiny.Ours(guest, native=False) as bare,
    ):
        fd, page = bare.vcpu.fd.fileno(), mmap.PAGESIZE
        kinds = {
            QUIET: _Latencies(native, count, native.round),
            "native": _Latencies(native, count, native.round),
            "python": _Latencies(python, count, python.round),
            GIL: _Latencies(bare, count, lambda: gil.run(fd, page, tiny.DONE)),
        }

        def disturbed(kind: str) -> float:
            with busy(interval):
                return kinds[kind].round()

        contenders: dict[str, Callable[[], float]] = {QUIET: kinds[QUIET].round}
        for kind in ("native", "python", GIL):
            contenders[kind] = lambda kind=kind: disturbed(kind)  # type: ignore[misc]
        interleave(contenders, rounds, progress=f"P7 beside a busy thread, {interval * 1e3:g} ms")
    return [
        row
        for ours, other, goal in (("native", QUIET, 1.1), ("python", GIL, 1.2))
        for row in _rows(kinds, interval, ours, other, goal)
    ]


def _rows(kinds: dict[str, _Latencies], interval: float, ours: str, other: str, goal: float) -> list[Row]:
    what = {"native": "native exit", "python": "exit to a Python device"}[ours]
    beside = f"beside a busy Python thread, switch interval {interval * 1e3:g} ms"
    rows = []
    for position, name in enumerate(("p50", "p99", "max")):
        mine = [p[position] for p in kinds[ours].percentiles[1:]]
        theirs = [p[position] for p in kinds[other].percentiles[1:]]
        judged = goal if name != "max" else None  # one disturbance of the machine decides a maximum
        rows.append(compare("P7", f"{what} {beside}, {name}", mine, other, theirs, unit="ns", goal=judged))
    return rows
