"""Where the Rust crate may differ from this project, each place with its reason; anything else fails.

`RULES` is the one list of them: `docs/virtio-queue-differences.md` is made of it, and `compare` applies it.
"""

import struct
from collections import Counter

import attrs
from virtio_queue import Reason

from differential.device import Chain, Fault, Record, Trace
from differential.generate import INDIRECT
from differential.rust import RustChain, RustError, RustRecord, RustTrace
from differential.script import (
    BASE,
    BLANK,
    END,
    HOLE,
    MAX_SIZE,
    PAGE,
    Complete,
    CompleteBatch,
    Decide,
    Pop,
    PopOne,
    Registers,
    Reset,
    Restore,
    Script,
    Step,
    Store,
)

AVAIL_NO_INTERRUPT = 1


class UnexplainedError(AssertionError):
    """The two differ where no rule allows it."""


@attrs.frozen
class Rule:
    """A difference that is allowed.

    Attributes:
        name: Of the row in the documentation.
        honest: It can be seen with a driver that keeps the rules.
        here: What this project does.
        rust: What the crate does.
        reason: Why this project does not do the same.
    """

    name: str
    honest: bool
    here: str
    rust: str
    reason: str


SAME = "as the crate's user sees it, the chain ends where it broke, like a shorter one"
RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "no-interrupt flag",
            True,
            "without event index, `needs_notification` is False when the driver set "
            "VIRTQ_AVAIL_F_NO_INTERRUPT or nothing was completed",
            "True, always",
            "2.7.7.2 asks the device not to interrupt then; each interrupt costs the guest an exit",
        ),
        Rule(
            "saved num_added",
            True,
            "after a restore `needs_notification` counts what was completed before it",
            "its state does not hold the number: what was completed since the last decision is forgotten",
            "the driver would wait for an interrupt that never comes",
        ),
        Rule(
            "invalid registers",
            False,
            "every operation raises `DriverError`",
            "`is_valid` says False too; whoever goes on gets an error or silence, as the operation has it",
            "a device must not work on rings that are not there, whether or not it asked first",
        ),
        Rule(
            "queue size register",
            False,
            "a size that is no power of two, 0, or above the maximum makes the queue invalid",
            "`set_size` keeps the size from before, and the queue is valid",
            "the driver laid its rings out for the size that it wrote",
        ),
        Rule(
            "broken for good",
            False,
            "after an available index that ran ahead, every pop raises until the reset",
            "reports the same (InvalidAvailRingIndex; None from `pop_descriptor_chain`), "
            "and goes on when the index is mended",
            "what the driver thinks of the ring is unknown then; only a reset makes both agree (2.1.2)",
        ),
        Rule(
            "chains in flight",
            False,
            "an index that announces more than `size` less the chains in flight breaks the queue",
            "up to `size` chains are taken, however many are in flight",
            "a driver has at most `size` chains out (2.7.13.3); else it makes the device hold any number",
        ),
        Rule(
            "head outside the table",
            False,
            "the queue is broken (HEAD)",
            "a chain without buffers, which `add_used` then refuses",
            "such a chain can never be given back, and its slot would be lost without anybody being told",
        ),
        Rule(
            "next outside the table",
            False,
            "the chain is reported (INDEX)",
            "its buffers up to there",
            SAME,
        ),
        Rule("loop", False, "the chain is reported (LOOP)", "as many buffers as the table has entries", SAME),
        Rule(
            "bad table length",
            False,
            "the chain is reported (TABLE_SIZE): 0, or no multiple of 16",
            "its buffers before the table",
            SAME,
        ),
        Rule(
            "table in a table",
            False,
            "the chain is reported (INDIRECT_NESTED)",
            "its buffers up to there",
            SAME,
        ),
        Rule(
            "over 2^32 bytes",
            False,
            "the chain is reported (TOTAL) above 2^32 bytes",
            "its buffers before the one with which the sum reaches 2^32",
            f"2.7.5.2 allows 2^32; {SAME}",
        ),
        Rule(
            "table outside memory",
            False,
            "the chain is reported (TABLE_ADDRESS) unless the whole table is in memory",
            "entries are read one by one, up to the end of memory",
            "a request that is half there is no request",
        ),
        Rule(
            "indirect not negotiated",
            False,
            "the chain is reported (INDIRECT_NOT_NEGOTIATED)",
            "the table is followed: the crate does not know what was negotiated",
            "2.7.5.3.1: drivers must not",
        ),
        Rule(
            "indirect and next",
            False,
            "the chain is reported (INDIRECT_WITH_NEXT)",
            "the table is followed, NEXT is ignored",
            "2.7.5.3.1: drivers must not; what comes after the table would be lost",
        ),
        Rule(
            "longer than the queue",
            False,
            "the chain is reported (TOO_LONG)",
            "as many buffers as the indirect table has entries",
            "2.7.5.3.1: drivers must not; devices size their arrays by the queue",
        ),
        Rule(
            "readable after writable",
            False,
            "the chain is reported (ORDER)",
            "all buffers; Reader and Writer filter them",
            "2.7.4.2: drivers must not",
        ),
        Rule(
            "buffer outside memory",
            False,
            "the chain is reported (ADDRESS) when it is popped",
            "all buffers; Reader or Writer fails later",
            "one place to check, before any part of the request was done",
        ),
    )
}

# Broken chains, by what the crate shows: exactly the buffers that were accepted here; or those and others.
_TRUNCATED = {
    Reason.INDEX: "next outside the table",
    Reason.LOOP: "loop",
    Reason.TABLE_SIZE: "bad table length",
    Reason.INDIRECT_NESTED: "table in a table",
    Reason.TOTAL: "over 2^32 bytes",
}
_FOLLOWED = {
    Reason.TABLE_ADDRESS: "table outside memory",
    Reason.INDIRECT_NOT_NEGOTIATED: "indirect not negotiated",
    Reason.INDIRECT_WITH_NEXT: "indirect and next",
    Reason.TOO_LONG: "longer than the queue",
    Reason.ORDER: "readable after writable",
    Reason.ADDRESS: "buffer outside memory",
}
EXPLAINED = (*_TRUNCATED, *_FOLLOWED)


class _End(Exception):
    """From here on the two queues are in different states, which a rule allowed."""


def compare(script: Script, trace: Trace, rust: RustTrace) -> Counter[str]:
    """Compare what became of a script; returns the rules that explained a difference, counted.

    Raises:
        UnexplainedError: They differ where no rule allows it.
    """
    return _Comparison(script, trace, rust).run()


class _Comparison:
    def __init__(self, script: Script, trace: Trace, rust: RustTrace) -> None:
        self.script, self.trace, self.rust = script, trace, rust
        self.explained: Counter[str] = Counter()
        self.added = self.forgotten = 0  # completions since the last decision; those of them before a restore

    def run(self) -> Counter[str]:
        """See `compare`."""
        if not self._valid():
            return self.explained
        steps = [step for step in self.trace.steps if type(step) is not Store]
        try:
            for number, (step, mine, theirs) in enumerate(
                zip(steps, self.trace.records, self.rust.records, strict=True)
            ):
                self.at = f"step {number} of the device, {step}"
                self._step(step, mine, theirs)
                for name in ("next_avail", "next_used", "used_ring"):
                    self._same(name, getattr(mine, name), getattr(theirs, name))
            self.at = "the end"
            self._same("dirty pages", self.trace.dirty, self.rust.dirty)
            self._same("memory", self.trace.memory, self.rust.memory)
        except _End:
            pass
        return self.explained

    def _explain(self, name: str, holds: bool, mine: object, theirs: object, *, end: bool = False) -> None:
        """A difference of the rule `name`, if it is as the rule says."""
        if not holds:
            raise UnexplainedError(f"{self.at}: not as the rule {name!r} says: here {mine}, Rust {theirs}")
        self.explained[name] += 1
        if end:
            raise _End

    def _same(self, what: str, mine: object, theirs: object) -> None:
        if mine != theirs:
            raise UnexplainedError(f"{self.at}: {what}: here {mine!r}, Rust {theirs!r}")

    def _valid(self) -> bool:
        self.at = "is_valid"
        self._judged(self.script.size, self.trace.valid, self.rust.valid)
        return self.trace.valid

    def _judged(self, size: int, mine: object, theirs: object) -> None:
        if mine is True:
            self._same("is_valid", mine, theirs)
        else:
            # The crate refuses a size in its setter and stays with the maximum.
            refused = not 0 < size <= MAX_SIZE or size & (size - 1) != 0
            name = "queue size register" if theirs else "invalid registers"
            self._explain(name, refused or not theirs, mine, theirs)

    def _step(self, step: Step, mine: Record, theirs: RustRecord) -> None:
        match step:
            case Pop() | PopOne():
                self._pop(step, mine, theirs.outcome)
            case Complete():
                self.added += 1
                self._same("result", mine.outcome, theirs.outcome)
            case CompleteBatch(chains):
                self.added += len(chains)
                self._decision(mine, theirs.outcome)
            case Decide():
                self._decision(mine, theirs.outcome)
            case Restore():
                self.forgotten = self.added
            case Registers(size):
                self._judged(size, mine.outcome, theirs.outcome)
            case Reset():
                self.added = self.forgotten = 0
            case _:
                self._same("result", mine.outcome, theirs.outcome)

    def _decision(self, mine: Record, theirs: object) -> None:
        """The decision here is judged by the specification as well, so that agreement is not all there is."""
        if self.script.event_idx:
            passed = (mine.next_used - mine.used_event - 1) & 0xFFFF
            self._same("decision by 2.7.7.2", mine.outcome, passed < self.added)
            if mine.outcome != theirs:
                expected = passed < self.added - self.forgotten
                self._explain("saved num_added", theirs is expected, mine.outcome, theirs)
        else:
            wanted = self.added > 0 and not mine.avail_flags & AVAIL_NO_INTERRUPT
            self._same("decision by 2.7.7.2", mine.outcome, wanted)
            if not wanted:
                self._explain("no-interrupt flag", theirs is True, mine.outcome, theirs)
            else:
                self._same("decision", mine.outcome, theirs)
        self.added = self.forgotten = 0

    def _pop(self, step: Step, mine: Record, theirs: object) -> None:
        if isinstance(mine.outcome, Fault):
            self._fault(step, mine, mine.outcome, theirs)
        assert isinstance(mine.outcome, tuple)
        if not isinstance(theirs, tuple):
            raise UnexplainedError(f"{self.at}: here {mine.outcome}, Rust {theirs}")
        for chain, other in zip(mine.outcome, theirs, strict=False):
            self._chain(chain, other)
        if len(theirs) > len(mine.outcome):
            # A batch that holds something already ends before what breaks the queue; the next pop reports it.
            odd = theirs[len(mine.outcome)]
            holds = bool(mine.outcome) and odd.head >= self.script.size and not odd.segments
            self._explain("head outside the table", holds, mine.outcome, theirs, end=True)
        self._same("number of chains", len(mine.outcome), len(theirs))

    def _fault(self, step: Step, mine: Record, fault: Fault, theirs: object) -> None:
        if fault.reason == Reason.HEAD:
            holds = (
                isinstance(theirs, tuple)
                and bool(theirs)
                and theirs[0].head == fault.head >= self.script.size
            )
            self._explain("head outside the table", holds and not theirs[0].segments, fault, theirs, end=True)
        self._same("reason", fault.reason, Reason.AVAILABLE_INDEX)
        waiting = (mine.avail_idx - mine.next_avail) & 0xFFFF
        if waiting > self.script.size:
            expected = () if type(step) is PopOne else RustError(index=True)
            self._explain("broken for good", theirs == expected, fault, theirs, end=True)
        holds = (
            isinstance(theirs, tuple)
            and bool(theirs)
            and waiting > fault.limit == self.script.size - self._in_flight(mine)
        )
        self._explain("chains in flight", holds, fault, theirs, end=True)

    @staticmethod
    def _in_flight(mine: Record) -> int:
        return (mine.next_avail - mine.next_used) & 0xFFFF

    def _chain(self, mine: Chain, theirs: RustChain) -> None:
        self._same("head", mine.head, theirs.head)
        if mine.error is None:
            if self.script.compatible:
                self._compatible(mine, theirs)
            else:
                self._same("segments", mine.segments, theirs.segments)
            self._same("streams", (True, True), (theirs.reader, theirs.writer))
            return
        seen = theirs.segments[: mine.count]
        if self.script.compatible:
            seen = _readable_first(seen)
        prefix = len(seen) == mine.count and mine.segments in (None, seen)
        if mine.error in _TRUNCATED:
            self._explain(_TRUNCATED[mine.error], prefix and len(theirs.segments) == mine.count, mine, theirs)
        elif mine.error in _FOLLOWED:
            self._explain(_FOLLOWED[mine.error], prefix, mine, theirs)
        else:
            raise UnexplainedError(f"{self.at}: no rule for {mine.error!r}: here {mine}, Rust {theirs}")

    def _compatible(self, mine: Chain, theirs: RustChain) -> None:
        """The same buffers, readable ones first; but two rules hold in this mode too."""
        assert mine.segments is not None
        if mine.segments == _readable_first(theirs.segments):
            return
        shorter = mine.count < len(theirs.segments)
        start = shorter and mine.segments == _readable_first(theirs.segments[: mine.count])
        if mine.count == self.script.size:
            self._explain("longer than the queue", start, mine, theirs, end=True)
        else:
            self._explain("table outside memory", start and self._leads_outside(), mine, theirs, end=True)

    def _leads_outside(self) -> bool:
        """Whether the driver ever had a descriptor that refers to a table of which not all is in memory."""
        image, desc = bytearray(BLANK), self.script.desc_table - BASE
        for step in self.script.steps:
            if isinstance(step, Store):
                image[step.addr - BASE : step.addr - BASE + len(step.data)] = step.data
                rows = struct.iter_unpack("<QIHH", image[desc : desc + 16 * self.script.size])
                if any(flags & INDIRECT and not _in_memory(addr, size) for addr, size, flags, _ in rows):
                    return True
        return False


def _readable_first(
    segments: tuple[tuple[int, int, bool], ...],
) -> tuple[tuple[int, int, bool], ...]:
    return tuple(sorted(segments, key=lambda segment: segment[2]))


def _in_memory(addr: int, size: int) -> bool:
    return BASE <= addr <= addr + size <= HOLE or HOLE + PAGE <= addr <= addr + size <= END


def table() -> str:
    """The rows of the documentation, one for each rule."""
    rows = [
        "| what | with an honest driver | here | the Rust crate | why not the same |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES.values():
        seen = "can be seen" if rule.honest else ""
        rows.append(f"| {rule.name} | {seen} | {rule.here} | {rule.rust} | {rule.reason} |")
    return "\n".join(rows) + "\n"
