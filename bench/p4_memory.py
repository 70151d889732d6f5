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
# Reads and writes take turns, as the floor's two figures do, which are their yardsticks.
WAYS: Final = (
    ("read of 1 MiB into a buffer", _GOAL),
    ("write of 1 MiB, marked dirty", _GOAL),
    ("read of 1 MiB through a slice", _GOAL),
    ("write of 1 MiB through a slice, marked dirty", _GOAL),
    ("read of 1 MiB as new bytes", None),
)
FLOOR, BEST, NEWEST = "memcpy", "vm-memory 0.16.2", "vm-memory 0.18"


class Turn:
    """A region of guest memory and a buffer, and everybody's copies between the two.

    Fresh for each turn: which physical pages one gets decides how well they share a cache. The buffer
    begins with a page, as everybody's does here: how it lies to the guest's pages decides whether stores
    make loads wait, and a bytearray may lie anywhere.
    """

    def __init__(self, count: int) -> None:
        """Touch every page of both; each figure is to be that of `count` copies."""
        self._count = count
        self._copy = yardsticks.extension("copy").run
        self.memory = GuestMemoryMmap([GuestRegionMmap.memfd(0, 4 * _BYTES, dirty=True)])
        self.memory.fill(0, 4 * _BYTES, 1)
        self.buffer = mmap.mmap(-1, _BYTES)
        self.buffer.write(b"\2" * _BYTES)

    def ours(self) -> tuple[float, ...]:
        """Return GiB/s of each of WAYS."""
        memory, buffer = self.memory, self.buffer
        calls = (
            self._rate(lambda: memory.read_into(_BYTES, buffer)),
            self._rate(lambda: memory.write(_BYTES, buffer)),
        )
        with memory.get_slice(_BYTES, _BYTES, write=True) as guest, memoryview(buffer) as host:
            guest_view = guest.view

            def read() -> None:
                host[:] = guest_view

            def write() -> None:
                guest_view[:] = host
                guest.mark_dirty()

            slices = self._rate(read), self._rate(write)
        return *calls, *slices, self._rate(lambda: memory.read(_BYTES, _BYTES))

    def floor(self) -> tuple[float, float]:
        """Return GiB/s of memcpy between the same pages, both ways."""
        with self.memory.get_slice(_BYTES, _BYTES, write=True) as guest:
            read = self._copy(self._count, self.buffer, guest.view)
            return rate(read), rate(self._copy(self._count, guest.view, self.buffer))

    def _rate(self, copy: Callable[[], object]) -> float:
        start = time.perf_counter_ns()
        for _ in range(self._count):
            copy()
        return rate((time.perf_counter_ns() - start) / self._count)


def rate(ns: float) -> float:
    """GiB/s of one copy in so many ns."""
    return _BYTES / (1 << 30) / (ns * 1e-9)


def run(options: Options) -> list[Row]:
    """Measure both ways."""
    count = options.work(_COPIES)
    commands: dict[str, list[str]] = {}
    for name, version in ((BEST, "best"), (NEWEST, "newest")):
        if (peer := yardsticks.peer(version)) is not None:
            commands[name] = [str(peer), "memory", str(_BYTES), "1"]
    rates: dict[str, list[tuple[float, ...]]] = {FLOOR: []}
    with ExitStack() as stack:
        served = {name: stack.enter_context(Served(words)) for name, words in commands.items()}

        def together() -> tuple[float, ...]:
            turn = Turn(count)
            rates[FLOOR].append(turn.floor())
            return turn.ours()

        def theirs(name: str) -> tuple[float, ...]:
            return tuple(rate(ns) for ns in served[name].ask(count))

        turns: dict[str, Callable[[], tuple[float, ...]]] = {"ours": together}
        turns |= {name: lambda name=name: theirs(name) for name in served}  # type: ignore[misc]

        def keep(name: str) -> float:
            rates.setdefault(name, []).append(turns[name]())
            return rates[name][-1][0]

        contenders = {name: lambda name=name: keep(name) for name in turns}
        interleave(contenders, options.rounds, progress="P4 1 MiB")  # type: ignore[arg-type]
    return report({name: list(zip(*rounds[1:], strict=True)) for name, rounds in rates.items()})


def report(rates: Mapping[str, Sequence[Sequence[float]]]) -> list[Row]:
    """Make rows of the rates of everybody's reads and writes, and of our further ways."""
    rows = []
    for name in (FLOOR, BEST, NEWEST):
        for way, (what, goal) in enumerate(WAYS):
            if name == FLOOR or way < 2:
                other = rates[name][way % 2] if name in rates else None
                judged = goal if name == FLOOR else None
                mine = rates["ours"][way]
                rows.append(
                    compare("P4", what, mine, name, other, unit="GiB/s", goal=judged, better="higher")
                )
    return rows
