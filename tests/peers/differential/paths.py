"""Which paths a script reached: judged by what happened, not by what its author meant."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from virtio_queue import Reason

from differential import differences
from differential.device import QUEUE_FAULTS, Chain, Fault, Record, Trace
from differential.script import (
    BASE,
    PAGE,
    Complete,
    CompleteBatch,
    Decide,
    Disable,
    Enable,
    Gather,
    Reset,
    Restore,
    Scatter,
    Script,
    Step,
    Store,
    Undo,
)

REGISTERS = (
    Reason.NOT_READY,
    Reason.RING_SIZE,
    Reason.RING_ALIGNMENT,
    Reason.RING_ADDRESS,
    Reason.RING_POSITION,
)
BREAKING = (Reason.AVAILABLE_INDEX, Reason.HEAD, Reason.BUFFER_ID, Reason.ENDLESS)

# The least share of the scripts that must reach each path. A hostile script has faults of many kinds, one
# after the other; what they hide of one another, and of its honest part, is in the count.
SHARE = 0.3
HONEST = {
    "direct chain",
    "indirect chain",
    "event index",
    "no event index",
    "interrupt wanted",
    "interrupt suppressed",
    "out-of-order completion",
    "batch of several chains",
    "ring wrapped",
    "kicks enabled or disabled",
    "bytes through a chain",
    "buffer of length 0",
    "index wrapped",
    "chains given back to the ring",
    "saved and restored",
    "rings over a region's end",
    "more chains came before the kick",
    "queue reset",
}


def _names(*reasons: Reason) -> set[str]:
    return {reason.name for reason in reasons}


_HOSTILE = {"bad chain", "broken queue", "sound chain beside", "invalid registers"}
HOSTILE = HONEST | _HOSTILE | _names(*differences.EXPLAINED, *BREAKING[:2], *REGISTERS[:4])
# Compatible walking reports buffers outside memory only: other chains end where their fault is.
COMPATIBLE = HOSTILE - _names(*differences.EXPLAINED) | _names(Reason.ADDRESS)
# A packed ring has no free-running index, and no links that could go astray or in circles; but it can break
# in other ways, and become too small for its positions.
_SPLIT = {"index wrapped"} | _names(Reason.INDEX, Reason.LOOP, Reason.INDIRECT_NESTED, Reason.HEAD)
PACKED_HONEST = HONEST - _SPLIT
PACKED_HOSTILE = (HOSTILE | _names(*BREAKING, *REGISTERS)) - _SPLIT


def count(reached: Iterable[set[str]]) -> Counter[str]:
    """How many scripts reached each path."""
    total: Counter[str] = Counter()
    for paths in reached:
        total.update(paths)
    return total


def reached(script: Script, trace: Trace) -> set[str]:
    """The paths that a script took."""
    paths = {"event index" if script.event_idx else "no event index"}
    if not trace.valid:
        paths.add("invalid registers")
    end = script.used_ring + 6 + 8 * script.size
    if script.desc_table < BASE + PAGE < end:
        paths.add("rings over a region's end")
    chains, tables, wraps, *_ = trace.counters
    for path, taken in (
        ("direct chain", chains > tables),
        ("indirect chain", tables),
        ("ring wrapped", wraps),
    ):
        if taken:
            paths.add(path)
    records = iter(trace.records)
    state = _State()
    for step in trace.steps:
        if type(step) is Store:
            continue
        record = next(records)
        paths.update(_shown(record), state.step(script, step, record))
    return paths


def _shown(record: Record) -> Iterator[str]:
    """What a pop showed."""
    outcome = record.outcome
    if isinstance(outcome, Fault):
        yield outcome.reason.name
        assert outcome.reason in QUEUE_FAULTS
        if outcome.reason in BREAKING:
            yield "broken queue"
        if outcome.reason in REGISTERS:
            yield "invalid registers"
    elif isinstance(outcome, tuple):
        if len(outcome) > 1:
            yield "batch of several chains"
        for chain in outcome:
            yield from _chain(chain)


def _chain(chain: Chain) -> Iterator[str]:
    if chain.error is not None:
        yield from ("bad chain", chain.error.name)
        return
    yield "sound chain beside"
    if any(length == 0 for _addr, length, _writable in chain.segments or ()):
        yield "buffer of length 0"


class _State:
    """Completions since the last decision, and where the used index was."""

    def __init__(self) -> None:
        self.added = 0
        self.used: int | None = None

    def step(self, script: Script, step: Step, record: Record) -> Iterator[str]:
        """What the device did."""
        before = script.start if self.used is None else self.used
        self.used = record.next_used
        if record.next_used < before and not script.packed and type(step) is not Reset:
            yield "index wrapped"
        match step:
            case Complete(which, _):
                self.added += 1
                yield from ["out-of-order completion"] * (which > 0)
            case CompleteBatch(chains):
                self.added += len(chains)
                yield from ["out-of-order completion"] * any(which > 0 for which, _ in chains)
                yield from self._decided(record)
            case Decide():
                yield from self._decided(record)
            case Enable() | Disable():
                yield "kicks enabled or disabled"
                if record.outcome is True:
                    yield "more chains came before the kick"
            case Gather() | Scatter():
                yield "bytes through a chain"
            case Restore():
                yield "saved and restored"
            case Undo():
                yield "chains given back to the ring"
            case Reset():
                self.added = 0
                yield "queue reset"

    def _decided(self, record: Record) -> Iterator[str]:
        if record.outcome is True:
            yield "interrupt wanted"
        elif record.outcome is False and self.added:
            yield "interrupt suppressed"
        self.added = 0


def shortfalls(
    counted: Counter[str], scripts: int, wanted: Collection[str], share: float = SHARE
) -> list[str]:
    """The paths that too few of the scripts took."""
    return [
        f"{path}: {counted[path]} of {scripts}, at least {share:.1%} wanted"
        for path in sorted(wanted)
        if counted[path] < share * scripts
    ]
