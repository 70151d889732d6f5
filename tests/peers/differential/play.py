"""All implementations at one script: `check` finds a difference, `shrink` makes its script short."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random

import attrs

from differential import differences, paths
from differential.device import Device, Trace
from differential.rust import Peer
from differential.script import Script, encode

CHUNK = 250  # scripts that are sent to the peer at once


class DifferenceError(AssertionError):
    """Two implementations disagree about a script; the message is a test that shows it."""

    def __init__(self, script: Script, found: str) -> None:
        super().__init__(f"{found}\n\nfrom differential.script import *\n{script!r}")
        self.script = script


@attrs.define
class Tally:
    """What a run met: paths that scripts took, and differences that a rule allowed."""

    scripts: int = 0
    paths: Counter[str] = attrs.Factory(Counter)
    rules: Counter[str] = attrs.Factory(Counter)


class Players:
    """The implementations.

    Args:
        first: The queue under test.
        second: Its oracle; both must agree on everything.
        peer: The Rust crate, or None.
    """

    def __init__(self, first: type, second: type, peer: Peer | None) -> None:
        self.first, self.second, self.peer = Device(first), Device(second), peer

    def check(self, scripts: Iterable[Script]) -> Tally:
        """Play the scripts everywhere and compare.

        Raises:
            DifferenceError: Two disagree; its script is short.
        """
        tally = Tally()
        for chunk in _chunks(scripts):
            try:
                self._check(chunk, tally)
            except DifferenceError as error:
                raise self.shrunk(error) from None
        return tally

    def _check(self, scripts: list[Script], tally: Tally) -> None:
        traces = [self._twins(script) for script in scripts]
        tally.scripts += len(scripts)
        tally.paths += paths.count(
            paths.reached(script, trace) for script, trace in zip(scripts, traces, strict=True)
        )
        if self.peer is None:
            return
        words = [
            (encode(script, trace.steps), trace.steps) for script, trace in zip(scripts, traces, strict=True)
        ]
        for script, trace, rust in zip(scripts, traces, self.peer.play(words), strict=True):
            try:
                tally.rules += differences.compare(script, trace, rust)
            except differences.UnexplainedError as error:
                raise DifferenceError(script, f"{type(self).__name__}: {error}") from None

    def _twins(self, script: Script) -> Trace:
        left, right = self.first.play(script), self.second.play(script)
        if left != right:
            raise DifferenceError(script, self._difference(left, right))
        return left

    def _difference(self, left: Trace, right: Trace) -> str:
        names = self.first.queue_class.__name__, self.second.queue_class.__name__
        steps = [step for step in left.steps if type(step).__name__ != "Store"]
        for step, mine, theirs in zip(steps, left.records, right.records, strict=False):
            if mine != theirs:
                return f"{step}: {names[0]} {mine}, {names[1]} {theirs}"
        fields = [
            name
            for name in ("valid", "steps", "dirty", "memory")
            if getattr(left, name) != getattr(right, name)
        ]
        return f"{' and '.join(names)} differ in {', '.join(fields)}"

    def shrunk(self, error: DifferenceError) -> DifferenceError:
        """A short script about which they still disagree, made from that of `error` by leaving steps out."""

        def attempt(script: Script) -> DifferenceError | None:
            try:
                self._check([script], Tally())
            except DifferenceError as found:
                return found
            return None

        return shrink(error, attempt)


def shrink(error: DifferenceError, attempt: Callable[[Script], DifferenceError | None]) -> DifferenceError:
    """Leave steps out, many at once at first, as long as `attempt` finds an error."""
    size = len(error.script.steps)
    while size:
        at, before = 0, len(error.script.steps)
        while at < len(error.script.steps):
            steps = error.script.steps
            fewer = attempt(attrs.evolve(error.script, steps=steps[:at] + steps[at + size :]))
            if fewer is None:
                at += size
            else:
                error = fewer
        if size > 1 or len(error.script.steps) == before:
            size //= 2
    return error


def _chunks(scripts: Iterable[Script]) -> Iterator[list[Script]]:
    chunk: list[Script] = []
    for script in scripts:
        chunk.append(script)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def seeded(make: Callable[[Random], Script], seed: str, count: int) -> Iterator[Script]:
    """So many scripts; each has a seed of its own, so that one can be made again without those before it."""
    for number in range(count):
        yield make(Random(f"{seed} {number}"))


@contextlib.contextmanager
def running(program: object) -> Iterator[Peer | None]:
    """A peer, or None without a program."""
    if program is None:
        yield None
    else:
        with Peer(program) as peer:  # type: ignore[arg-type]
            yield peer
