"""One strategy per way in which a driver can break the rules of a chain."""

import enum
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from virtio_queue._layout import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, U16, U64
from virtio_queue.testing._hostile import HostileChain, RawDescriptor

_U32 = (1 << 32) - 1
_BEYOND = (1, 2, 4, 8, 16, 3, 17, 255, U16)  # each small queue size is among them
_FLAGS = (0, DESC_WRITE)


class Attack(enum.Enum):
    """Which rule a hostile chain is made to break, most of the time."""

    INDEX = "a next or head index outside its table"
    CYCLE = "descriptors that lead back to one another"
    ORDER = "a readable buffer behind a writable one"
    EDGE = "a buffer at, over or near an end of memory"
    TOTAL = "buffers that sum to about 2^32 bytes"
    TABLE = "an indirect table of any length, anywhere"
    LONG_TABLE = "an indirect table with more buffers than the queue has entries"
    NESTED = "an indirect table inside an indirect table"
    COMBINED = "an indirect table among other elements of a list"
    ANYTHING = "descriptors of arbitrary words"


Rows = st.SearchStrategy[tuple[RawDescriptor, ...]]
Chains = st.SearchStrategy[HostileChain]
_Buffers = list[tuple[int, int, int]]  # address, length, flags


class Attacks:
    """Makes hostile chains for guest memory of a known shape.

    Args:
        area: (address, bytes) for harmless buffers.
        table: Where the rows behind `HostileChain.table` will lie.
        edges: Addresses where memory begins, ends or changes.
        huge: Where 2^32 - 1 bytes are mapped; any address if nowhere.
    """

    def __init__(self, area: tuple[int, int], table: int, edges: Sequence[int], huge: int) -> None:
        self._area = area
        self._table = table
        self._edges = tuple(edges)
        self._huge = huge

    def of(self, attack: Attack) -> Chains:
        """The strategy of one attack."""
        makers: dict[Attack, Callable[[], Chains]] = {
            Attack.INDEX: self._index,
            Attack.CYCLE: self._cycle,
            Attack.ORDER: self._order,
            Attack.EDGE: self._edge,
            Attack.TOTAL: self._total,
            Attack.TABLE: self._any_table,
            Attack.LONG_TABLE: self._long_table,
            Attack.NESTED: self._nested,
            Attack.COMBINED: self._combined,
            Attack.ANYTHING: self._anything,
        }
        return makers[attack]()

    def _linked(self, buffers: Sequence[tuple[int, int, int]], last: int | None = None) -> HostileChain:
        """A direct chain of (address, length, flags); `last` is where its end leads, None nowhere."""
        return HostileChain(rows=self._rows(buffers, last))

    def _rows(
        self, buffers: Sequence[tuple[int, int, int]], last: int | None = None
    ) -> tuple[RawDescriptor, ...]:
        final = len(buffers) - 1
        return tuple(
            (addr, length, flags | DESC_NEXT, index + 1)
            if index < final
            # Without NEXT the last word means nothing in a split ring; in a packed one it is the id.
            else (
                addr,
                length,
                flags | (0 if last is None else DESC_NEXT),
                index + 1 if last is None else last,
            )
            for index, (addr, length, flags) in enumerate(buffers)
        )

    def _in_table(self, chain: HostileChain) -> HostileChain:
        row = (self._table, 16 * len(chain.rows), DESC_INDIRECT, 0)
        return HostileChain(rows=(row,), table=chain.rows, head=0)

    def _either(self, direct: Chains) -> Chains:
        """In the queue's table or in an indirect one."""
        return st.tuples(direct, st.booleans()).map(
            lambda drawn: self._in_table(drawn[0]) if drawn[1] else drawn[0]
        )

    def _harmless(self, most: int) -> st.SearchStrategy[_Buffers]:
        base, _room = self._area
        flags = st.sampled_from(_FLAGS)
        return st.tuples(st.integers(1, most), st.integers(0, 8), flags).map(
            lambda drawn: [(base, drawn[1], drawn[2])] * drawn[0]
        )

    def _index(self) -> Chains:
        beyond = st.sampled_from(_BEYOND)
        links = st.tuples(self._harmless(2), beyond).map(lambda drawn: self._linked(*drawn))
        return st.one_of(beyond.map(lambda head: HostileChain(head=head)), self._either(links))

    def _cycle(self) -> Chains:
        cycles = st.tuples(self._harmless(3), st.integers(0, 2)).map(
            lambda drawn: self._linked(drawn[0], drawn[1] % len(drawn[0]))
        )
        return self._either(cycles)

    def _order(self) -> Chains:
        base, _room = self._area
        flags = st.lists(st.sampled_from((DESC_WRITE, 0)), min_size=2, max_size=4)
        lengths = st.integers(0, 8)
        return self._either(
            st.tuples(flags, lengths).map(
                lambda drawn: self._linked([(base, drawn[1], flag) for flag in drawn[0]])
            )
        )

    def _edge(self) -> Chains:
        def chain(edge: int, place: int, length: int, flags: int, before: int) -> HostileChain:
            # It ends at the edge, a byte before or behind it; or begins there.
            start = edge + place % 3 - 1 - (length if place < 3 else 0)
            buffers = [(max(0, min(start, U64)), length, flags)]
            # What remembers where the last buffer was is asked about the end of that memory.
            firsts = [[], [(self._area[0], 1, 0)], [(max(0, edge - 16), 4, 0)]]
            return self._linked(firsts[before] + buffers)

        chains = st.builds(
            chain,
            st.sampled_from(self._edges),
            st.integers(0, 5),
            st.integers(1, 4),
            st.sampled_from(_FLAGS),
            st.integers(0, 2),
        )
        return self._either(chains)

    def _total(self) -> Chains:
        length = st.sampled_from((_U32, 1, 2, 1 << 31, 1 << 30))
        sums = st.tuples(st.lists(length, min_size=2, max_size=5), st.sampled_from(_FLAGS)).map(
            lambda drawn: self._linked([(self._huge, size, drawn[1]) for size in drawn[0]])
        )
        return self._either(sums)

    def _any_table(self) -> Chains:
        length = st.one_of(
            st.sampled_from((0, 1, 15, 17, 24, _U32, _U32 - 15)), st.integers(0, 40).map(lambda n: 16 * n)
        )
        near = st.tuples(st.sampled_from(self._edges), st.sampled_from((-16, -1, 0, -32)))
        place = st.one_of(
            st.integers(0, 1).map(lambda odd: self._table + odd),
            near.map(lambda drawn: max(0, min(drawn[0] + drawn[1], U64))),
        )
        flags = st.sampled_from((DESC_INDIRECT, DESC_INDIRECT | DESC_WRITE))
        return st.tuples(place, length, flags, self._harmless(2)).map(
            lambda drawn: HostileChain(rows=((*drawn[:3], 0),), table=self._rows(drawn[3]))
        )

    def _long_table(self) -> Chains:
        return self._harmless(20).map(lambda buffers: self._in_table(self._linked(buffers)))

    def _nested(self) -> Chains:
        inner = st.tuples(st.sampled_from((16, 0)), st.sampled_from((16, 32, 8)), self._harmless(1)).map(
            lambda drawn: (
                (self._table + drawn[0], drawn[1], DESC_INDIRECT, 0),
                *self._rows(drawn[2]),
            )
        )
        outer = (self._table, 32, DESC_INDIRECT, 0)
        return inner.map(lambda table: HostileChain(rows=(outer,), table=table))

    def _combined(self) -> Chains:
        """An indirect table before another element of its list, or behind it, as a split ring allows."""

        def chain(flags: int, behind: bool, other: _Buffers, inner: _Buffers) -> HostileChain:
            table = (self._table, 16, flags)
            rows = self._rows([*other, table] if behind else [table, *other])
            return HostileChain(rows=rows, table=self._rows(inner))

        flags = st.sampled_from((DESC_INDIRECT, DESC_INDIRECT | DESC_WRITE))
        return st.builds(chain, flags, st.booleans(), self._harmless(1), self._harmless(1))

    def _anything(self) -> Chains:
        base, room = self._area
        row = st.tuples(
            st.one_of(
                st.integers(base, base + room), st.sampled_from(self._edges[:-1]), st.just(self._table)
            ),
            st.one_of(st.integers(0, 64), st.integers(0, _U32)),
            st.one_of(st.integers(0, 7), st.integers(0, U16)),
            st.one_of(st.integers(0, 4), st.sampled_from(_BEYOND)),
        )
        rows: Rows = st.lists(row, min_size=1, max_size=4).map(tuple)
        head = st.one_of(st.integers(0, 4), st.sampled_from(_BEYOND))
        return st.builds(HostileChain, rows=rows, table=rows, head=head)
