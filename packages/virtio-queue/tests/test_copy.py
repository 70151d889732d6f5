"""The bytes of a whole batch in one call, against the obvious loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, Reason
from vmm_memory import FileOffset, GuestMemoryError, GuestMemoryMmap, GuestRegionMmap

PAGE, SPLIT, END = 0x1000, 0x3000, 0x5000  # two regions side by side
CONTENT = bytes((11 * i ^ i >> 7) & 0xFF for i in range(END))


def make_memory(page=PAGE):
    """Two regions with known content, nothing dirty, in pages of a size."""
    ranges = [(0, SPLIT), (SPLIT, END - SPLIT)]
    memory = GuestMemoryMmap(
        [GuestRegionMmap.anonymous(*place, dirty=True, dirty_page_size=page) for place in ranges]
    )
    memory.write(0, CONTENT)
    memory.take_dirty()
    return memory


class Elsewhere:
    """Memory whose map is empty, as one that is translated piece by piece: C can do nothing with it."""

    def __init__(self, memory):
        self._memory = memory
        self._empty = GuestMemoryMmap()

    def access_map(self):
        return self._empty.access_map()

    def __getattr__(self, name):
        return getattr(self._memory, name)


class Fleeting(Elsewhere):
    """Memory that hands each table out once, and keeps none: as one whose regions another thread changes."""

    def access_map(self):
        return GuestMemoryMmap(self._memory.regions).access_map()


@st.composite
def buffers(draw):
    """One chain: buffers anywhere in memory, readable before writable; or a broken one."""
    lengths = draw(st.lists(st.sampled_from((0, 1, 3, 8, 40, 2000)), max_size=4))
    readable = draw(st.integers(0, len(lengths)))
    starts = [draw(st.integers(0, END - length) | st.just(SPLIT - length // 2)) for length in lengths]
    kinds = [index >= readable for index in range(len(lengths))]
    segments = list(zip(starts, lengths, kinds, strict=True))
    return segments, draw(st.sampled_from((0, 0, 0, -Reason.ADDRESS)))


CHAINS = st.lists(buffers(), max_size=5)


def fill(chains):
    """A batch of them."""
    batch = ChainBatch(8, 64)
    for head, (segments, error) in enumerate(chains):
        batch.append(head, segments, error=error)
    return batch


@given(chains=CHAINS, elsewhere=st.booleans(), spare=st.integers(0, 3))
def test_gather_is_all_readable_bytes(chains, elsewhere, spare):
    """One chain behind the other; broken ones have none, and what is behind the last byte stays."""
    memory = make_memory()
    expected = b"".join(
        CONTENT[start : start + length]
        for segments, error in chains
        if not error
        for start, length, writable in segments
        if not writable
    )
    into = bytearray(b"?" * (len(expected) + spare))
    assert fill(chains).gather(Elsewhere(memory) if elsewhere else memory, into) == len(expected)
    assert bytes(into) == expected + b"?" * spare
    assert memory.take_dirty() == ()


def test_the_table_stays_as_long_as_the_copy():
    """Nobody else may hold it: under ASan the copy would be found reading what is freed."""
    memory, batch = make_memory(), fill([([(0x10, 8, False), (SPLIT - 4, 8, True)], 0)])
    fleeting, into = Fleeting(memory), bytearray(8)
    assert batch.gather(fleeting, into) == 8
    assert into == CONTENT[0x10:0x18]
    assert batch.scatter(fleeting, b"scatters") == 8
    assert memory.read(SPLIT - 4, 8) == b"scatters"


# Of the smaller pages a buffer has so many that their bits are in several words.
@given(chains=CHAINS, elsewhere=st.booleans(), page=st.sampled_from((PAGE, 64, 4)), data=st.data())
def test_scatter_is_writing_one_by_one(chains, elsewhere, page, data):
    """With or without sizes: the same bytes, used lengths and dirty pages as a loop of writes."""
    rooms = [
        0 if error else sum(length for _, length, writable in segments if writable)
        for segments, error in chains
    ]
    sizes = data.draw(st.none() | st.tuples(*(st.integers(0, room) for room in rooms)), label="sizes")
    length = data.draw(st.integers(sum(sizes or ()), sum(rooms) + 5), label="bytes")
    source = bytes((i * 5 + 1) & 0xFF for i in range(length))

    other, left, shares = make_memory(page), source, []
    for index, (segments, _error) in enumerate(chains):
        shares.append(min(rooms[index], len(left)) if sizes is None else sizes[index])
        part, left = left[: shares[-1]], left[shares[-1] :]
        for start, size, writable in segments:
            if writable and part[:size]:
                other.write(start, part[:size])
                part = part[size:]

    memory, batch = make_memory(page), fill(chains)
    assert batch.scatter(Elsewhere(memory) if elsewhere else memory, source, sizes) == sum(shares)
    assert [record[3] for record in batch.records()] == shares
    assert memory.read(0, END) == other.read(0, END)
    assert memory.take_dirty() == other.take_dirty()


@pytest.mark.parametrize("wrap", [lambda memory: memory, Elsewhere])
def test_a_buffer_that_is_too_small_is_refused(wrap):
    """The message says how much there is."""
    batch = fill([([(0, 10, False)], 0), ([(0, 7, False)], 0)])
    with pytest.raises(ValueError, match="buffer of 16 bytes, the chains have 17"):
        batch.gather(wrap(make_memory()), bytearray(16))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1], "1 sizes for a batch of 2 chains"),
        ([11, 0], "chain 0: 11 bytes to write, 10 writable"),
        ([0, 1], "chain 1: 1 bytes to write, 0 writable"),
        ([-1, 0], "chain 0: -1 bytes to write"),
        ([9, 0], "sizes sum to 9 bytes, there are 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    """With the chain and both numbers; nothing is written."""
    memory, batch = make_memory(), fill([([(0, 10, True)], 0), ([(64, 10, True)], -Reason.LOOP)])
    with pytest.raises(ValueError, match=message):
        batch.scatter(memory, b"12345678", sizes)
    assert memory.read(0, END) == CONTENT
    assert [record[3] for record in batch.records()] == [0, 0]


@pytest.mark.parametrize("where", [END - 4, END, (1 << 64) - 4])
def test_memory_that_went_away_is_an_error(where):
    """A batch outlives the map it was popped with: each address is checked again."""
    memory = make_memory()
    with pytest.raises(GuestMemoryError):
        fill([([(where, 8, False)], 0)]).gather(memory, bytearray(8))
    batch = fill([([(0, 4, True)], 0), ([(where, 8, True)], 0)])
    with pytest.raises(GuestMemoryError):
        batch.scatter(memory, bytes(12))
    assert [record[3] for record in batch.records()] == [4, 0]


def test_read_only_memory_is_not_written(tmp_path):
    """Gathering from it is fine; scattering into it is an error of the memory."""
    file = tmp_path / "rom"
    file.write_bytes(b"r" * PAGE)
    with file.open("rb") as rom:
        region = GuestRegionMmap.from_file(0, PAGE, FileOffset(rom.fileno()), shared=False, read_only=True)
    memory, into = GuestMemoryMmap([region]), bytearray(4)
    assert fill([([(8, 4, False)], 0)]).gather(memory, into) == 4
    assert into == b"rrrr"
    with pytest.raises(GuestMemoryError, match="read-only"):
        fill([([(8, 4, True)], 0)]).scatter(memory, b"1234")
