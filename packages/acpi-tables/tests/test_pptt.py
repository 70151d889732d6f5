"""The PPTT: positions and offsets, round trip, iasl, hostile tables."""

import contextlib

import pytest
from acpi_tables import CacheKind, CacheNode, EncodingError, Pptt, ProcessorNode, TableError
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG

U32 = st.integers(0, 0xFFFF_FFFF)


@st.composite
def tables(draw):
    """Caches and processors in any order, naming each other both ways."""
    kinds = draw(st.lists(st.booleans(), min_size=1, max_size=8))
    caches = [at for at, is_cache in enumerate(kinds) if is_cache]
    groups = [at for at, is_cache in enumerate(kinds) if not is_cache]
    other_cache = st.none() | st.sampled_from(caches) if caches else st.none()
    other_group = st.none() | st.sampled_from(groups) if groups else st.none()
    own = st.lists(st.sampled_from(caches), max_size=3).map(tuple) if caches else st.just(())
    cache = st.builds(
        CacheNode, kind=st.sampled_from(CacheKind), size=U32, sets=U32, ways=st.integers(0, 255),
        line_size=st.integers(0, 0xFFFF), write_through=st.booleans(), next_level=other_cache,
    )  # fmt: skip
    flag = st.booleans()
    group = st.builds(
        ProcessorNode,
        parent=other_group,
        uid=st.none() | U32,
        package=flag,
        thread=flag,
        leaf=flag,
        caches=own,
    )
    return Pptt(tuple(draw(cache if is_cache else group) for is_cache in kinds))


SMALL = Pptt(
    (
        ProcessorNode(package=True),
        CacheNode(kind=CacheKind.UNIFIED, size=1 << 20, sets=1024, ways=16, line_size=64),
        CacheNode(kind=CacheKind.DATA, size=32768, sets=128, ways=4, line_size=64, next_level=1),
        ProcessorNode(parent=0, uid=7, leaf=True, caches=(2, 1)),
    )
)
GOOD = SMALL.encode()


@given(tables())
def test_round_trip(table):
    """What is encoded decodes to an equal object."""
    assert Pptt.decode(table.encode()) == table


@settings(max_examples=500 if LONG else 4, deadline=None)
@given(table=tables())
def test_iasl_rebuilds_it(iasl, table):
    """Field by field the same bytes."""
    encoded = table.encode()
    assert iasl().round_trip(encoded)[36:] == encoded[36:]


def test_offsets_are_of_the_table():
    """A processor of 20 bytes, two caches of 24, a processor with two resources of 28."""
    assert len(GOOD) == 36 + 20 + 24 + 24 + 28
    assert GOOD[80 + 8 : 80 + 12] == (56).to_bytes(4, "little")  # the next level of the cache at 80
    assert GOOD[104 + 8 : 104 + 12] == (36).to_bytes(4, "little")
    assert GOOD[104 + 20 :] == (80).to_bytes(4, "little") + (56).to_bytes(4, "little")


@given(st.lists(st.tuples(st.integers(36, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_tables(changes):
    """TableError, or a table that encodes back to the very bytes, reserved ones apart."""
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(TableError):
        found = Pptt.decode(bytes(data))
        for at in (38, 39, 58, 59, 82, 83, 106, 107):
            data[at] = 0
        assert found.encode()[36:] == data[36:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD[:-1], "node at 0x68 of 0x1c bytes, but the table ends"),
        (GOOD[:37] + b"\x00" + GOOD[38:], "node at 0x24 of 0x0 bytes"),
        (GOOD[:36] + b"\x02" + GOOD[37:], "node of type 2 with 0x14 bytes"),
        (GOOD[:112] + b"\x38" + GOOD[113:], "offset 0x38 leads to no node of type 0"),
    ],
)
def test_contradictions_are_named(table, message):
    """Lengths, types, and offsets that lead nowhere."""
    with pytest.raises(TableError, match=message):
        Pptt.decode(table, 0x10)


CACHE = CacheNode(kind=CacheKind.DATA, size=1, sets=1, ways=1, line_size=1)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((ProcessorNode(parent=1),), "parent cannot be 0x1: the position of a ProcessorNode"),
        ((ProcessorNode(caches=(0,)),), "caches cannot be 0x0: the position of a CacheNode"),
        (
            (
                ProcessorNode(),
                CacheNode(kind=CacheKind.DATA, size=1, sets=1, ways=1, line_size=1, next_level=0),
            ),
            "next_level",
        ),
        ((CACHE, ProcessorNode(caches=(0,) * 59)), "caches of a processor cannot be 0x3b: at most 58"),
        ((CacheNode(kind=CacheKind.DATA, size=1 << 32, sets=1, ways=1, line_size=1),), "of layout"),
        ((ProcessorNode(uid=1 << 32),), "of layout"),
    ],
)
def test_what_does_not_fit_is_refused(nodes, message):
    """Positions of the wrong kind, and values beyond their fields."""
    with pytest.raises(EncodingError, match=message):
        Pptt(nodes).encode()
