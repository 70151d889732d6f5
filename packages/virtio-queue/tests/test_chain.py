"""Chains as objects."""

from virtio_queue import DescriptorChain, Segment
from vmm_memory import GuestMemoryMmap

SEGMENTS = (Segment(0x1000, 3, False), Segment(0x2000, 4, False), Segment(0x3000, 5, True))


def test_parts_and_totals():
    """A chain is a sequence of segments in two parts."""
    chain = DescriptorChain(7, SEGMENTS, GuestMemoryMmap())
    assert (list(chain), len(chain)) == (list(SEGMENTS), 3)
    assert (chain.readable, chain.writable) == (SEGMENTS[:2], SEGMENTS[2:])
    assert (chain.readable_bytes, chain.writable_bytes) == (7, 5)


def test_repr_shows_the_chain():
    """For logs: head and segments, not the memory."""
    assert repr(DescriptorChain(7, SEGMENTS[2:], GuestMemoryMmap())) == (
        "DescriptorChain(head=7, segments=(Segment(addr=12288, len=5, writable=True),))"
    )


def test_streams_cover_their_part():
    """The reader sees what may be read, the writer what may be written."""
    mem = GuestMemoryMmap.from_ranges([(0x1000, 0x3000)])
    mem.write(0x1000, b"abc")
    mem.write(0x2000, b"defg")
    chain = DescriptorChain(7, SEGMENTS, mem)
    assert chain.reader().read_all() == b"abcdefg"
    chain.writer().write(b"hello")
    assert mem.read(0x3000, 5) == b"hello"
