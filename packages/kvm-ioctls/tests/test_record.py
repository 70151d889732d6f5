"""The C decoder on hand-made run pages: no KVM needed, and none would produce the hostile ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import (
    ExitReason,
    IoIn,
    IoOut,
    KvmAbiError,
    MmioRead,
    MmioWrite,
)
from kvm_ioctls.testing import PAGE_SIZE, FakeRunPage


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3, 1024])
def test_port_output_carries_all_its_bytes(size, count):
    """A port write gives port, element size, count and every byte."""
    data = bytes(i % 251 for i in range(size * count))
    page = FakeRunPage().put_io(write=True, port=0x3F8, size=size, count=count, data=data)

    assert page.decode() == IoOut(0x3F8, size, count, data)


@pytest.mark.parametrize("count", [1, 7])
def test_port_input_keeps_the_element_size(count):
    """A port read tells size and count apart, which a plain byte length could not."""
    page = FakeRunPage().put_io(write=False, port=0x1F0, size=2, count=count)

    assert page.decode() == IoIn(0x1F0, 2, count)


@given(size=st.integers(1, 8), addr=st.integers(0, 2**64 - 1), data=st.binary(min_size=8, max_size=8))
def test_mmio_of_every_size(size, addr, data):
    """MMIO of 1..8 bytes gives address and exactly the bytes written."""
    write = FakeRunPage().put_mmio(write=True, addr=addr, size=size, data=data)
    read = FakeRunPage().put_mmio(write=False, addr=addr, size=size)

    assert write.decode() == MmioWrite(addr, size, data[:size])
    assert read.decode() == MmioRead(addr, size)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 3},
        {"size": 0},
        {"size": 8},
        {"count": 0},
        {"count": 2 * PAGE_SIZE + 1},
        {"count": 0xFFFF_FFFF, "size": 4},
    ],
    ids=str,
)
def test_impossible_port_exits_are_refused(changes):
    """Sizes, counts and offsets that would lead outside the page are an ABI error."""
    page = FakeRunPage().put_io(**{"write": True, "port": 1, "size": 1, **changes})

    with pytest.raises(KvmAbiError, match="the run page contradicts the KVM ABI"):
        page.decode()


@pytest.mark.parametrize("offset", [3 * PAGE_SIZE, 3 * PAGE_SIZE - 3, 2**64 - 1, 2**63])
def test_data_offset_outside_the_page_is_refused(offset):
    """Four bytes that do not fit behind data_offset are an ABI error, also where the sum wraps."""
    body = struct.pack("<BBHIQ", 1, 4, 0x80, 1, offset)

    with pytest.raises(KvmAbiError):
        FakeRunPage().put(ExitReason.IO, body).decode()


@pytest.mark.parametrize("length", [0, 9, 0xFFFF_FFFF])
def test_impossible_mmio_length_is_refused(length):
    """MMIO longer than its data field is an ABI error."""
    body = struct.pack("<Q8sIB", 0x1000, b"", length, 1)

    with pytest.raises(KvmAbiError):
        FakeRunPage().put(ExitReason.MMIO, body).decode()


def test_short_page_is_refused():
    """A mapping smaller than struct kvm_run is never looked into."""
    page = FakeRunPage(pages=0)
    page.page[:] = b""

    with pytest.raises(KvmAbiError):
        page.decode()


@given(reason=st.integers(0, 50) | st.integers(0, 2**32 - 1), body=st.binary(max_size=256))
def test_any_page_decodes_or_is_an_abi_error(reason, body):
    """Whatever the union holds, decoding ends in an exit or in KvmAbiError, never in anything else."""
    page = FakeRunPage().put(reason, body)

    try:
        decoded = page.decode()
    except KvmAbiError:
        assert reason in (ExitReason.IO, ExitReason.MMIO)
    else:
        assert type(decoded).__module__ in ("kvm_ioctls._exits", "kvm_ioctls._exits_arch")
