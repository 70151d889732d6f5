"""P4: bulk guest memory read and write, 1 MiB, beside memcpy and the Rust crates."""

import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import yardsticks
from harness import Options, Row, Served, compare, interleave
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

_BYTES: Final = 1 << 20
_COPIES: Final = 200
_GOAL: Final = 0.97
FLOOR, BEST, NEWEST = "memcpy", "vm-memory 0.16.2", "vm-memory 0.18"


class Ours:
    """A region of guest memory and a buffer.

    Fresh for each figure: which physical pages one gets decides how well they share a cache. The buffer
    begins with a page, as everybody's does here: how it lies to the guest's pages decides whether stores
    make loads wait, and a bytearray may lie anywhere.
    """

    def __init__(self) -> None:
        """Touch every page of both."""
        self.memory = GuestMemoryMmap([GuestRegionMmap.memfd(0, 4 * _BYTES, dirty=True)])
        self.memory.fill(0, 4 * _BYTES, 1)
        self.buffer = mmap.mmap(-1, _BYTES)
        self.buffer.write(b"\2" * _BYTES)

    def read(self, count: int) -> float:
        """Return GiB/s of reads into a buffer."""
        return self._rate(lambda: self.memory.read_into(_BYTES, self.buffer), count)

    def write(self, count: int) -> float:
        """Return GiB/s of writes from a buffer, dirty pages marked."""
        return self._rate(lambda: self.memory.write(_BYTES, self.buffer), count)

    def read_new(self, count: int) -> float:
        """Return GiB/s of reads that make a bytes object each."""
        return self._rate(lambda: self.memory.read(_BYTES, _BYTES), count)

    @staticmethod
    def _rate(copy: Callable[[], object], count: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(count):
            copy()
        return rate((time.perf_counter_ns() - start) / count)


def rate(ns: float) -> float:
    """GiB/s of one copy in so many ns."""
    return _BYTES / (1 << 30) / (ns * 1e-9)


def run(options: Options) -> list[Row]:
    """Measure both ways."""
    count = options.work(_COPIES)
    commands: dict[str, list[str]] = {FLOOR: [str(yardsticks.floor("copy")[0]), str(_BYTES)]}
    for name, version in ((BEST, "best"), (NEWEST, "newest")):
        if (peer := yardsticks.peer(version)) is not None:
            commands[name] = [str(peer), "memory", str(_BYTES), "1"]
    rates: dict[str, list[tuple[float, ...]]] = {}
    with ExitStack() as stack:
        served = {name: stack.enter_context(Served(words)) for name, words in commands.items()}

        def theirs(name: str) -> tuple[float, ...]:
            return tuple(rate(ns) for ns in served[name].ask(count))

        def mine() -> tuple[float, ...]:
            ours = Ours()
            return ours.read(count), ours.write(count), ours.read_new(count)

        turns: dict[str, Callable[[], tuple[float, ...]]] = {"ours": mine}
        turns |= {name: lambda name=name: theirs(name) for name in served}  # type: ignore[misc]

        def keep(name: str) -> float:
            rates.setdefault(name, []).append(turns[name]())
            return rates[name][-1][0]

        contenders = {name: lambda name=name: keep(name) for name in turns}
        interleave(contenders, options.rounds, progress="P4 1 MiB")  # type: ignore[arg-type]
    return report({name: list(zip(*rounds[1:], strict=True)) for name, rounds in rates.items()})


def report(rates: Mapping[str, Sequence[Sequence[float]]]) -> list[Row]:
    """Make rows of the rates of each one's reads, writes and, for us, reads of new bytes."""
    ways = ("read of 1 MiB into a buffer", "write of 1 MiB, marked dirty")
    rows = []
    for name, goal in ((FLOOR, _GOAL), (BEST, None), (NEWEST, None)):
        for way, what in enumerate(ways):
            other = rates[name][way] if name in rates else None
            mine = rates["ours"][way]
            rows.append(compare("P4", what, mine, name, other, unit="GiB/s", goal=goal, better="higher"))
    what, new, reads = "read of 1 MiB as new bytes", rates["ours"][2], rates[FLOOR][0]
    return [*rows, compare("P4", what, new, FLOOR, reads, unit="GiB/s", goal=None, better="higher")]
