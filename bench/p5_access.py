"""P5: many typed accesses in one call, beside the C floor and a loop over those of the Rust crates."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import attrs
import yardsticks
from harness import Options, Row, Served, compare, interleave
from p1_queue import BEST, FLOOR, MEMORY, NEWEST, anonymous_memory
from vmm_memory import AccessVector

_ACCESSES: Final = 256_000  # of each way in a round
_WAYS: Final = ("load", "store")
_GOAL: Final = 1.0
# Way, whose figures, which figure of its answer, goal. The crates have two ways of a typed access; the
# second copies an object.
_ROWS: Final = (
    ("load", BEST, 0, _GOAL),
    ("load", f"{BEST}, read_obj", 2, _GOAL),
    ("load", FLOOR, 0, None),
    ("load", NEWEST, 0, None),
    ("store", BEST, 1, _GOAL),
    ("store", f"{BEST}, write_obj", 3, _GOAL),
    ("store", FLOOR, 1, None),
    ("store", NEWEST, 1, None),
)


@attrs.frozen
class Work:
    """A configuration: how many accesses a call makes, and the memory."""

    count: int
    regions: int = 1
    dirty: bool = True

    @property
    def what(self) -> str:
        """In words."""
        regions = "1 region" if self.regions == 1 else f"{self.regions} regions"
        return f"of u64, {self.count} in one call, {regions}, {'dirty' if self.dirty else 'no'} bitmap"


WORKS: Final = (Work(64), Work(64, dirty=False), Work(1024), Work(64, regions=8))


def address(index: int) -> int:
    """Where access `index` goes: over all of memory, in an order that no prefetcher knows."""
    return index * 0x9E37_79B1 % (MEMORY // 8) * 8


class Ours:
    """Guest memory and a vector of addresses."""

    def __init__(self, work: Work) -> None:
        """Touch all of the memory."""
        self.memory = anonymous_memory(work.regions, dirty=work.dirty)
        self.memory.fill(0, MEMORY, 1)
        self.vector = AccessVector([address(index) for index in range(work.count)], 8)

    def ns(self, rounds: int) -> tuple[float, float]:
        """Return ns of one load and of one store."""
        vector = self.vector
        times = []
        for call in (self.memory.load_vector, self.memory.store_vector):
            start = time.perf_counter_ns()
            for _ in range(rounds):
                call(vector)
            times.append((time.perf_counter_ns() - start) / rounds / len(vector))
        if set(vector.values) != {0x0101_0101_0101_0101}:
            raise RuntimeError("the loads did not load what is in memory")
        return times[0], times[1]


def run(options: Options) -> list[Row]:
    """Measure all configurations."""
    return [row for work in WORKS for row in _measure(work, options)]


def _measure(work: Work, options: Options) -> list[Row]:
    ours, rounds = Ours(work), options.work(_ACCESSES // work.count)
    words = [str(work.count), str(work.regions), str(int(work.dirty))]
    commands = {FLOOR: [str(yardsticks.floor("access")[0]), *words]}
    for name, version in ((BEST, "best"), (NEWEST, "newest")):
        if (peer := yardsticks.peer(version)) is not None:
            commands[name] = [str(peer), "access", *words]
    pairs: dict[str, list[Sequence[float]]] = {}
    with ExitStack() as stack:
        served = {name: stack.enter_context(Served(command)) for name, command in commands.items()}

        def turn(name: str) -> float:
            pair = ours.ns(rounds) if name == "ours" else served[name].ask(rounds)
            pairs.setdefault(name, []).append(pair)
            return pair[0]

        contenders = {name: lambda name=name: turn(name) for name in ("ours", *served)}
        interleave(contenders, options.rounds, progress=f"P5 {work.what}")  # type: ignore[arg-type]
    columns = {name: list(zip(*kept[1:], strict=True)) for name, kept in pairs.items()}
    return report(work, columns)


def report(work: Work, columns: Mapping[str, Sequence[Sequence[float]]]) -> list[Row]:
    """Make rows of each one's columns, which are the runs of one figure each."""
    rows = []
    for way, name, column, goal in _ROWS:
        other = columns.get(name.partition(", ")[0])
        rows.append(
            compare(
                "P5",
                f"{way} {work.what}",
                columns["ours"][_WAYS.index(way)],
                name,
                None if other is None else other[column],
                unit="ns",
                goal=goal,
            )
        )
    return rows
