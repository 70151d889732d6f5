"""P4: bulk guest memory read and write, 1 MiB, beside memcpy and the Rust crates."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import yardsticks
from harness import Options, Row, Served, compare, interleave
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

_BYTES: Final = 1 << 20
_COPIES: Final = 200
_GOAL: Final = 0.97
FLOOR, BEST = "memcpy", "vm-memory 0.16.2"


class Ours:
    """A region of guest memory and a buffer."""

    def __init__(self) -> None:
        """Touch every page of both."""
        self.memory = GuestMemoryMmap([GuestRegionMmap.memfd(0, 4 * _BYTES, dirty=True)])
        self.memory.fill(0, 4 * _BYTES, 1)
        self.buffer = bytearray(b"\2" * _BYTES)

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
    ours, count = Ours(), options.work(_COPIES)
    commands: dict[str, list[object]] = {FLOOR: [*yardsticks.floor("copy"), _BYTES]}
    if (peer := yardsticks.peer("best")) is not None:
        commands[BEST] = [peer, "memory", _BYTES, 1]
    both: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        served = {
            name: stack.enter_context(Served([str(word) for word in words]))
            for name, words in commands.items()
        }

        def other(name: str) -> float:
            read, write = served[name].ask(count)
            both[name].append((rate(read), rate(write)))
            return read

        contenders: dict[str, Callable[[], float]] = {
            "read": lambda: ours.read(count),
            "write": lambda: ours.write(count),
            "read_new": lambda: ours.read_new(count),
        }
        contenders |= {name: lambda name=name: other(name) for name in served}  # type: ignore[misc]
        times = interleave(contenders, options.rounds, progress="P4 1 MiB")
    rows = []
    for name in (FLOOR, BEST):
        pairs = both.get(name, [])[1:]  # the first is the warm-up round
        for way, index, what in (
            ("read", 0, "read of 1 MiB into a buffer"),
            ("write", 1, "write of 1 MiB, marked dirty"),
        ):
            figures = [pair[index] for pair in pairs]
            rows.append(
                compare(
                    "P4",
                    what,
                    times[way],
                    name,
                    figures,
                    unit="GiB/s",
                    goal=_GOAL if name == FLOOR else None,
                    better="higher",
                )
            )
    reads = [pair[0] for pair in both[FLOOR][1:]]
    what = "read of 1 MiB as new bytes"
    return [
        *rows,
        compare("P4", what, times["read_new"], FLOOR, reads, unit="GiB/s", goal=None, better="higher"),
    ]
