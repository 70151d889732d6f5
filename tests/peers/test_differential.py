"""The same scripts through our queue, its twin and the Rust crate: equal, or different for a known reason."""

from collections import Counter
from pathlib import Path

import attrs
import pytest
from differential import differences, generate, hostile, packed, paths, rust, script
from differential.device import Device
from differential.play import DifferenceError, Players, seeded
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import Queue
from virtio_queue.testing import TwinQueue
from vmm_testhost.pytest_plugin import LONG

COUNT = 60_000 if LONG else 2_500  # of each kind
PACKED_COUNT = 20_000 if LONG else 1_500
PAGE = Path(__file__).parents[2] / "docs" / "virtio-queue-differences.md"
KINDS = {"honest": (generate.honest, paths.HONEST), "hostile": (hostile.hostile, paths.HOSTILE)}
BUILD = 600  # seconds in which cargo has fetched and compiled some twenty small crates


@pytest.fixture(scope="module")
def peer():
    """The Rust crate behind a pipe; the one reason to skip is that cargo cannot build it here."""
    try:
        program = rust.build()
    except rust.MissingPeerError as missing:
        pytest.skip(str(missing))
    with rust.Peer(program) as running:
        yield running


@pytest.mark.timeout(BUILD)
@pytest.mark.parametrize("kind", KINDS)
def test_scripts_of_a_seed(peer, kind, record_testsuite_property):
    """Every path is taken by 30 % of many scripts; with an honest driver two differences exist."""
    make, wanted = KINDS[kind]
    tally = Players(Queue, TwinQueue, peer).check(seeded(make, kind, COUNT))
    record_testsuite_property(f"{kind} paths of {tally.scripts}", dict(tally.paths.most_common()))
    record_testsuite_property(f"{kind} differences", dict(tally.rules.most_common()))
    assert tally.scripts == COUNT
    assert paths.shortfalls(tally.paths, tally.scripts, wanted) == []
    expected = {rule.name for rule in differences.RULES.values() if rule.honest or kind == "hostile"}
    assert set(tally.rules) == expected, (
        "a rule that nothing needs any more, or one that an honest driver must not need"
    )


@pytest.mark.timeout(BUILD)
@given(random=st.randoms(use_true_random=False), kind=st.sampled_from(list(KINDS)))
def test_scripts_that_shrink(peer, random, kind):
    """The same with Hypothesis as the source of chance, which remembers and shrinks what it found."""
    Players(Queue, TwinQueue, peer).check([KINDS[kind][0](random)])


STRICT_ONLY = {
    "next outside the table",
    "loop",
    "bad table length",
    "table in a table",
    "over 2^32 bytes",
    "indirect not negotiated",
    "indirect and next",
    "readable after writable",
}


@pytest.mark.timeout(BUILD)
def test_compatible_walking_is_the_crates(peer, record_testsuite_property):
    """With `compatible` a broken chain has the buffers that the crate finds: eight differences are gone."""
    tally = Players(Queue, TwinQueue, peer).check(seeded(hostile.compatible, "compatible", PACKED_COUNT))
    record_testsuite_property(f"compatible paths of {tally.scripts}", dict(tally.paths.most_common()))
    assert set(tally.rules) == set(differences.RULES) - STRICT_ONLY
    assert paths.shortfalls(tally.paths, tally.scripts, paths.COMPATIBLE) == []


PACKED = {"honest": (packed.honest, paths.PACKED_HONEST), "hostile": (packed.hostile, paths.PACKED_HOSTILE)}


@pytest.mark.timeout(BUILD)
@pytest.mark.parametrize("kind", PACKED)
def test_packed_scripts_of_a_seed(kind, record_testsuite_property):
    """The crate has no packed rings: our two implementations, on scripts and paths of their own."""
    make, wanted = PACKED[kind]
    tally = Players(Queue, TwinQueue, None).check(seeded(make, kind, PACKED_COUNT))
    record_testsuite_property(f"packed {kind} paths of {tally.scripts}", dict(tally.paths.most_common()))
    assert tally.scripts == PACKED_COUNT
    assert paths.shortfalls(tally.paths, tally.scripts, wanted) == []


@given(random=st.randoms(use_true_random=False), kind=st.sampled_from(list(PACKED)))
def test_packed_scripts_that_shrink(random, kind):
    """The same with Hypothesis as the source of chance."""
    Players(Queue, TwinQueue, None).check([PACKED[kind][0](random)])


def test_twins_without_rust():
    """Where there is no cargo, our two implementations are compared all the same."""
    for kind, (make, wanted) in KINDS.items():
        tally = Players(Queue, TwinQueue, None).check(seeded(make, f"{kind} alone", 500))
        assert paths.shortfalls(tally.paths, tally.scripts, wanted, paths.SHARE / 4) == []


class _DeafQueue(TwinQueue):
    """A twin that does not look at the index again when it asks for kicks."""

    def enable_notification(self, mem):
        super().enable_notification(mem)
        return False


def test_a_bug_is_found_and_made_short():
    """A lost kick in one of them is seen, and the message is a script of a few steps."""
    with pytest.raises(DifferenceError) as found:
        Players(Queue, _DeafQueue, None).check(seeded(generate.honest, "deaf", 500))
    assert len(found.value.script.steps) <= 4
    assert "Script(size=" in str(found.value)
    assert eval(repr(found.value.script), vars(script)) == found.value.script


@pytest.mark.timeout(BUILD)
@pytest.mark.parametrize(
    "field", ["next_avail", "next_used", "used_ring", "outcome", "dirty", "memory", "valid"]
)
def test_each_observation_counts(peer, field):
    """A change to any one thing that the crate showed is told: nothing is collected and then not compared."""
    noticed = 0
    device = Device(Queue)
    for one in seeded(generate.honest, field, 50):
        trace = device.play(attrs.evolve(one, steps=(*one.steps, script.Enable())))
        (answer,) = peer.play([(script.encode(one, tuple(trace.steps)), trace.steps)])
        differences.compare(one, trace, answer)
        try:
            differences.compare(one, trace, _changed(answer, field))
        except differences.UnexplainedError:
            noticed += 1
    assert noticed >= 45


def _changed(answer, field):
    if field in ("dirty", "memory", "valid"):
        other = {"dirty": (*answer.dirty, 1), "memory": answer.memory[:-1] + b"?", "valid": not answer.valid}
        return attrs.evolve(answer, **{field: other[field]})
    at = next((at for at, record in enumerate(answer.records) if field != "outcome" or record.outcome), 0)
    record = answer.records[at]
    values = {"next_avail": record.next_avail ^ 1, "next_used": record.next_used ^ 1, "outcome": b"other"}
    values["used_ring"] = bytes([record.used_ring[0] ^ 1]) + record.used_ring[1:]
    return attrs.evolve(
        answer,
        records=[*answer.records[:at], record._replace(**{field: values[field]}), *answer.records[at + 1 :]],
    )


def test_a_shortfall_is_told():
    """A path that too few scripts took fails, whatever else was met."""
    told = paths.shortfalls(Counter({"a": 29, "b": 31}), 100, {"a", "b"})
    assert told == ["a: 29 of 100, at least 30.0% wanted"]


def test_the_documentation_has_every_rule():
    """The table of differences is the one that the comparison applies."""
    assert differences.table() in PAGE.read_text(), (
        "differential/differences.py and its page say different things"
    )
