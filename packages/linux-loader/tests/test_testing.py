"""The recording memory against a bytearray."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import GuestRange
from linux_loader.testing import RecordingMemory, build_bzimage


@given(st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=5000)), max_size=6))
def test_against_bytearray(writes):
    """Any writes, read back whole, equal a flat model; each one is recorded."""
    model, memory = bytearray(b"\x11" * 16384), RecordingMemory([(0, 16384)], fill=0x11)
    for at, data in writes:
        model[at : at + len(data)] = data
        memory.write(at, data)
    assert memory.read(0, 16384) == model
    assert memory.written == [GuestRange(at, len(data)) for at, data in writes]


def test_ranges_are_enforced():
    """Accesses outside guest memory raise and are not recorded."""
    memory = RecordingMemory([(0x1000, 0x1000)])
    for at, size in ((0xFFF, 2), (0x1FFF, 2), (0x5000, 1)):
        with pytest.raises(IndexError, match="outside guest memory"):
            memory.write(at, bytes(size))
        with pytest.raises(IndexError, match="outside guest memory"):
            memory.read(at, size)
    assert memory.written == []


def test_unknown_setup_fields():
    """A misspelt header field is not ignored."""
    with pytest.raises(TypeError, match=r"unknown setup header fields .'verison'"):
        build_bzimage(verison=1)
