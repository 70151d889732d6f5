"""Copy, compare, search and lists of ranges, against the twin."""

import os
import socket
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import (
    GuestAccessError,
    GuestMemoryMmap,
    InvalidGuestAddressError,
    PartialBufferError,
    TransferError,
    UnexpectedEofError,
)
from vmm_memory.testing import ByteArrayMemory, guarded_region
from vmm_memory.testing.strategies import TOP, layouts, ranges_near

PAGE = 4096
BASE = 0x10000


def outcome(call, *args, **kwargs):
    """What a call returned, or the type and text of what it raised."""
    try:
        return call(*args, **kwargs)
    except (GuestAccessError, ValueError) as error:
        return type(error), str(error)


class Bulk(RuleBasedStateMachine):
    """The same script on mmap regions and on the twin: same bytes, same errors, same dirty pages."""

    @initialize(layout=layouts(), seed=st.binary(min_size=5, max_size=5))
    def begin(self, layout, seed):
        """Both over one layout, filled with few different bytes so that searches and comparisons hit."""
        self.layout, self.ranges = layout, ranges_near(layout)
        self.real = GuestMemoryMmap([guarded_region(base, size) for base, size in layout])
        self.twin = ByteArrayMemory(layout)
        for base, size in layout:
            data = bytes(seed[(i * i >> 3) % 5] & 3 for i in range(64)) * (size // 64)
            for memory in (self.real, self.twin):
                memory.write(base, data)

    def both(self, name, *args):
        """Call it on both and compare."""
        assert outcome(getattr(self.real, name), *args) == outcome(getattr(self.twin, name), *args)

    @rule(data=st.data(), step=st.integers(-200, 200), near=st.booleans())
    def copy(self, data, step, near):
        """Overlapping on either side, and far apart."""
        src, size = data.draw(self.ranges)
        dst = max(0, src + step) if near else data.draw(self.ranges)[0]
        self.both("copy_within", src, dst, size)

    @rule(data=st.data(), at=st.integers(0, 3 * PAGE), flip=st.booleans())
    def compare(self, data, at, flip):
        """With what is there, or with one byte changed."""
        addr, size = data.draw(self.ranges)
        there = outcome(self.twin.read, addr, size)
        other = bytearray(there if isinstance(there, bytes) else size)
        if flip and at < size:
            other[at] ^= 1
        self.both("compare", addr, bytes(other))
        self.both("compare", addr, other)

    @rule(data=st.data())
    def compare_within(self, data):
        """Two ranges of memory."""
        addr, size = data.draw(self.ranges)
        self.both("compare_within", addr, data.draw(self.ranges)[0], size)

    @rule(data=st.data(), needle=st.lists(st.integers(0, 3), max_size=6).map(bytes), cut=st.booleans())
    def find(self, data, needle, cut):
        """Something made up, or cut out of memory (over a seam, perhaps)."""
        addr, size = data.draw(self.ranges)
        if cut:
            there = outcome(self.twin.read, *data.draw(self.ranges))
            needle = there[:5000] if isinstance(there, bytes) else needle
        self.both("find", addr, size, needle)

    @rule(data=st.data(), byte=st.integers(0, 255))
    def ranges_lists(self, data, byte):
        """Scatter, then gather, also where ranges overlap or repeat."""
        ranges = data.draw(st.lists(self.ranges, max_size=5))
        total = sum(size for _, size in ranges)
        payload = bytes((byte + i) & 255 for i in range(total))
        self.both("scatter", ranges, payload)
        self.both("gather", ranges)
        buffer = bytearray(total)
        got = outcome(self.real.gather_into, ranges, buffer)
        assert (bytes(buffer) if got is None else got) == outcome(self.twin.gather, ranges)

    @rule(data=st.data(), offset=st.integers(0, 100), inward=st.booleans(), short=st.booleans())
    def files(self, data, offset, inward, short):
        """Lists of ranges out of and into a file of the right length; the list may be impossible."""
        ranges = data.draw(st.lists(self.ranges, max_size=4))
        total = sum(size for _, size in ranges)
        results = []
        for memory in (self.real, self.twin):
            fd = os.memfd_create("file")
            try:
                os.pwrite(fd, bytes(i * 7 & 255 for i in range(offset + total)), 0)
                call = memory.scatter_from_fd if inward else memory.gather_to_fd
                result = outcome(call, ranges, fd, offset=offset, short=short)
                results.append((result, os.pread(fd, offset + total + 1, 0)))
            finally:
                os.close(fd)
        assert results[0] == results[1]

    @invariant()
    def same_dirty_pages(self):
        """The bitmap holds exactly the pages the twin remembers."""
        if not hasattr(self, "real"):
            return
        pages = {
            (region.base, page)
            for region in self.real
            for page in range(len(region.bitmap))
            if region.bitmap.is_bit_set(page)
        }
        assert pages == self.twin.dirty

    def teardown(self):
        """The bytes are equal at the end."""
        for base, size in getattr(self, "layout", ()):
            assert self.real.read(base, size) == self.twin.read(base, size)


TestBulk = Bulk.TestCase


@given(
    start=st.integers(0, 9 * PAGE - 1),
    length=st.integers(1, 3 * PAGE),
    step=st.integers(-2 * PAGE, 2 * PAGE),
)
@example(start=0, length=9 * PAGE, step=0)
@example(start=0, length=9 * PAGE - 1, step=1)
def test_overlapping_copy_over_many_regions(start, length, step):
    """Ten regions of a page in a row: as memmove on one array, also up to exactly 2^64."""
    for base in (BASE, TOP - 10 * PAGE):
        memory = GuestMemoryMmap([guarded_region(base + i * PAGE, PAGE) for i in range(10)])
        model = bytearray(os.urandom(10 * PAGE))
        memory.write(base, model)
        length, target = min(length, 10 * PAGE - start), start + step
        if not 0 <= target <= 10 * PAGE - length:
            continue
        memory.copy_within(base + start, base + target, length)
        model[target : target + length] = model[start : start + length]
        assert memory.read(base, 10 * PAGE) == model


def test_find_over_the_scratch_buffer():
    """A match over the seam of two pieces of a long search is found, and the first of two."""
    memory = GuestMemoryMmap([guarded_region(i << 20, 1 << 20) for i in range(2)])
    for at in ((1 << 16) - 3, (1 << 20) - 3, (1 << 21) - 6):
        memory.fill(0, 2 << 20)
        memory.write(at, b"needle")
        assert memory.find(0, 2 << 20, b"needle") == at
        assert memory.find(at, 6, b"needle") == at
        assert memory.find(at, 5, b"needle") is None
        assert memory.find(at + 1, (2 << 20) - at - 1, b"needle") is None
    big = os.urandom(300_000)
    memory.write(777_777, big)
    assert memory.find(0, 2 << 20, big) == 777_777


def test_find_is_linear():
    """What makes a naive search quadratic is answered at once (the test's time limit is the judge)."""
    memory = GuestMemoryMmap([guarded_region(0, 8 << 20)])
    memory.fill(0, 8 << 20, 0x61)
    assert memory.find(0, 8 << 20, b"a" * 50_000 + b"b") is None
    assert memory.find(0, 8 << 20, b"b" + b"a" * 50_000) is None


def test_arguments_that_cannot_be(two_regions):
    """Each says what is wrong, and nothing moves."""
    with pytest.raises(ValueError, match="data has 0 bytes"):
        two_regions.find(BASE, 10, b"")
    with pytest.raises(ValueError, match="ranges have 0x8 bytes together, the buffer has 0x7"):
        two_regions.scatter([(BASE, 4), (BASE + 8, 4)], bytes(7))
    with pytest.raises(ValueError, match="ranges have 0x8 bytes together, the buffer has 0x9"):
        two_regions.gather_into([(BASE, 8)], bytearray(9))
    with pytest.raises(InvalidGuestAddressError, match="address must be in"):
        two_regions.gather([(BASE, 4), (-1, 4)])
    with pytest.raises(ValueError, match="size is -4"):
        two_regions.gather([(BASE, -4)])
    with pytest.raises(TypeError):
        two_regions.gather([BASE])
    with pytest.raises(PartialBufferError):
        two_regions.scatter([(BASE, 4), (0x40000 + PAGE - 1, 4)], b"12345678")
    assert two_regions.take_dirty() == ()


def test_many_ranges_and_short_io(two_regions):
    """More ranges than one system call takes, through a socket that trickles; then back out through it."""
    ranges = [(BASE + i * 37 % 0x7000, i % 23) for i in range(300)]
    ranges = [(BASE + i * 24, i % 23) for i in range(300)]
    total = sum(size for _, size in ranges)
    content = os.urandom(total)
    ours, theirs = socket.socketpair()

    def trickle():
        for start in range(0, total, 97):
            theirs.sendall(content[start : start + 97])

    with ours, theirs:
        sender = threading.Thread(target=trickle)
        sender.start()
        assert two_regions.scatter_from_fd(ranges, ours.fileno()) == total
        sender.join()
        assert two_regions.gather(ranges) == content
        assert two_regions.gather_to_fd(ranges, ours.fileno()) == total
        assert theirs.recv(total + 1, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == content


def test_short_takes_what_comes(two_regions):
    """One system call: some of it, none of it at the end of the file, an error when nothing is ready."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        os.write(writer, b"12345")
        assert two_regions.scatter_from_fd([(BASE, 3), (BASE + 8, 9)], reader, short=True) == 5
        assert two_regions.gather([(BASE, 3), (BASE + 8, 9)]) == b"12345" + bytes(7)
        with pytest.raises(TransferError, match="unavailable after 0x0 of 0x4 bytes"):
            two_regions.read_from_fd(BASE, reader, 4, short=True)
        os.write(writer, b"6")
        os.close(writer)
        with pytest.raises(UnexpectedEofError, match="after 0x1 of 0x4 bytes"):
            two_regions.read_from_fd(BASE, reader, 4)
        assert two_regions.read_from_fd(BASE, reader, 4, short=True) == 0
    finally:
        os.close(reader)
