"""Interleaved rounds, medians, ratios and verdicts: what every figure has in common."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import attrs

FEWEST_RUNS: Final = 7
Better = Literal["lower", "higher"]
Status = Literal["met", "missed", "missing", "shown"]


@attrs.frozen
class Row:
    """One figure beside one yardstick; what `bench/results.json` holds a list of.

    Args:
        id: P1 to P9, from the table of goals.
        what: the work, in words.
        ours: our median.
        yardstick: the yardstick's median; None when it is missing.
        yardstick_name: whose figure that is.
        ratio: ours / yardstick.
        unit: of both.
        better: which side of the goal is good.
        status: "met" or "missed" the goal, "missing" without a yardstick, "shown" without a goal.
        goal: what the ratio is compared with; None for none.
        spread: half the middle half of our runs (interquartile range), relative to their median.
        runs: how many runs the medians are of.
    """

    id: str
    what: str
    ours: float
    yardstick: float | None
    yardstick_name: str
    ratio: float | None
    unit: str
    better: Better
    status: Status
    goal: float | None
    spread: float
    runs: int

    def line(self) -> str:
        """One line for people."""
        head = f"{self.id}  {self.what}: ours {self.ours:.4g} {self.unit} (±{self.spread:.0%})"
        if self.ratio is None:
            return f"{head}; {self.yardstick_name}: {self.status}"
        sign = "<=" if self.better == "lower" else ">="
        goal = "" if self.goal is None else f", goal {sign} {self.goal:g}: {self.status}"
        return f"{head} / {self.yardstick_name} {self.yardstick:.4g} = {self.ratio:.3f}{goal}"


@attrs.frozen
class Options:
    """How long to measure.

    Args:
        rounds: interleaved rounds of the short benchmarks.
        boots: of the boots, which take seconds each.
        scale: divides the work of a round; 1 but for a smoke test.
    """

    rounds: int = 21
    boots: int = FEWEST_RUNS
    scale: int = 1

    def work(self, count: int) -> int:
        """Return how many of `count` repetitions to do in a round."""
        return max(1, count // self.scale)


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int, *, progress: str = ""
) -> dict[str, list[float]]:
    """Measure everybody once a round, `rounds` times, after one round that does not count.

    Args:
        contenders: a function per name, which does its share and returns its figure.
        rounds: 1 or more.
        progress: what to print a counter for; nothing when empty.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            figure = measure()
            if number:
                times[name].append(figure)
        if progress:
            _progress(f"{progress}: round {number}/{rounds}")
    if progress:
        _progress("")
    return times


def _progress(text: str) -> None:
    """Show one line that the next one overwrites; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", flush=True, file=sys.stderr)


def spread(samples: Sequence[float]) -> float:
    """Return half the interquartile range relative to the median: what a disturbed round does not move."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2 / middle if middle else 0.0


def judge(ratio: float, goal: float | None, better: Better) -> Status:
    """Compare a ratio with its goal."""
    if goal is None:
        return "shown"
    return "met" if (ratio <= goal if better == "lower" else ratio >= goal) else "missed"


def compare(
    figure: str,
    what: str,
    ours: Sequence[float],
    yardstick_name: str,
    yardstick: Sequence[float] | None,
    *,
    unit: str,
    goal: float | None,
    better: Better = "lower",
    plus: float = 0.0,
) -> Row:
    """Make a row of two lists of runs.

    Args:
        figure: the id.
        what: the work.
        ours: our runs.
        yardstick_name: whose the other runs are.
        yardstick: those runs; None or none at all when there is no such peer here.
        unit: of both.
        goal: for the ratio; None for none.
        better: which side of the goal is good.
        plus: what the goal allows on top of the yardstick, in its unit.
    """
    mine = statistics.median(ours)
    common = {"id": figure, "what": what, "ours": mine, "yardstick_name": yardstick_name, "unit": unit}
    common |= {"better": better, "goal": goal, "spread": spread(ours), "runs": len(ours)}
    if not yardstick:
        return Row(**common, yardstick=None, ratio=None, status="missing")  # type: ignore[arg-type]
    other = statistics.median(yardstick) + plus
    ratio = mine / other
    return Row(**common, yardstick=other, ratio=ratio, status=judge(ratio, goal, better))  # type: ignore[arg-type]


class Served:
    """A contender that is a process: it reads how much to do, line by line, and answers with its figures."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, count: int) -> list[float]:
        """Let it do `count` repetitions; return the numbers of its answer.

        Raises:
            RuntimeError: it ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")
        return [float(word) for word in line.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process still at work is not waited for when something else went wrong.
        if error is not None:
            self._process.kill()
        with suppress(BrokenPipeError):  # what was written to one that had ended is still in the buffer
            self._process.communicate()
        self._process.wait()
