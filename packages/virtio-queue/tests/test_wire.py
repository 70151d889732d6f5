"""Headers declared by their fields, and bytes that go straight between chains and files."""

import os
import threading
from typing import Annotated

import pytest
from virtio_queue import U8, U16, U32, U64, DriverError, WireStruct
from vmm_memory import TransferError


class BlkHeader(WireStruct):
    """VIRTIO 1.2, 5.2.6: little-endian."""

    type: U32
    reserved: U32
    sector: U64


class Frame(WireStruct, endian="big"):
    """Something in network order."""

    target: Annotated[bytes, "6s"]
    kind: U16
    flags: U8


def test_bytes_of_a_struct():
    """Each field in its width and order, without padding."""
    assert (BlkHeader.SIZE, Frame.SIZE) == (16, 9)
    header = BlkHeader(1, 0, 0x0102_0304_0506_0708)
    assert header.to_bytes() == bytes.fromhex("01000000000000000807060504030201")
    assert BlkHeader.from_bytes(header.to_bytes()) == header
    assert Frame(b"abcdef", 0x0806, 7).to_bytes() == b"abcdef\x08\x06\x07"
    with pytest.raises(AttributeError):
        header.sector = 1


def test_mistakes_are_named():
    """Values that do not fit, bytes of another length, fields without a width, another byte order."""
    with pytest.raises(ValueError, match=r"BlkHeader\(type=-1"):
        BlkHeader(-1, 0, 0).to_bytes()
    with pytest.raises(ValueError, match="BlkHeader has 16 bytes, not 15"):
        BlkHeader.from_bytes(bytes(15))
    with pytest.raises(TypeError, match=r"Loose.number has no width: annotate it with U8 to U64"):
        type("Loose", (WireStruct,), {"__annotations__": {"number": int}})
    with pytest.raises(TypeError, match="Odd: endian is 'middle', must be 'little' or 'big'"):
        type("Odd", (WireStruct,), {}, endian="middle")


def test_structs_in_chains(bench):
    """However the driver cut the buffers; what is too short is told and changes nothing."""
    driver = bench.driver()
    raw = BlkHeader(4, 0, 9).to_bytes()
    driver.request([raw[:5], raw[5:] + b"tail"], [4, 12])
    chain = bench.queue.pop(bench.mem)
    reader, writer = chain.reader(), chain.writer()
    assert reader.read_struct(BlkHeader) == BlkHeader(4, 0, 9)
    with pytest.raises(DriverError):
        reader.read_struct(BlkHeader)
    assert reader.read_all() == b"tail"
    writer.write_struct(BlkHeader(1, 2, 3))
    with pytest.raises(DriverError):
        writer.write_struct(Frame(b"", 0, 0))
    bench.queue.add_used(bench.mem, chain.head, writer.consumed)
    assert b"".join(next(driver.completed()).data) == BlkHeader(1, 2, 3).to_bytes()


def test_straight_to_and_from_files(bench, tmp_path):
    """Both directions, at the position and at an offset; the end of a file is fewer bytes, not an error."""
    driver = bench.driver()
    driver.request([b"abc", b"defgh"], [4, 10])
    chain = bench.queue.pop(bench.mem)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDWR)
    try:
        assert chain.writev(fd, offset=2) == 8
        assert path.read_bytes() == b"01abcdefgh"
        reader, writer = chain.reader(), chain.writer()
        reader.skip(1)
        assert (reader.writev(fd, 3), reader.consumed, path.read_bytes()) == (3, 4, b"bcdbcdefgh")
        assert (writer.readv(fd, 5, offset=5), writer.consumed) == (5, 5)
        assert (writer.readv(fd, offset=8), writer.available) == (2, 7)
        assert chain.readv(fd, offset=0) == 10
        with pytest.raises(DriverError):
            writer.readv(fd, 8)
    finally:
        os.close(fd)
    with pytest.raises(TransferError):
        writer.readv(fd, 1)
    bench.queue.add_used(bench.mem, chain.head, 10)
    assert next(driver.completed()).data == (b"bcdb", b"cdefgh")


def test_short_reads_go_on(bench):
    """A pipe that brings a byte at a time fills the whole chain."""
    driver = bench.driver()
    driver.request([], [3, 4])
    chain = bench.queue.pop(bench.mem)
    source, sink = os.pipe()
    feeder = threading.Thread(target=lambda: [os.write(sink, bytes([n])) for n in range(7)])
    feeder.start()
    try:
        assert chain.readv(source) == 7
    finally:
        feeder.join()
        os.close(source)
        os.close(sink)
    bench.queue.add_used(bench.mem, chain.head, 7)
    assert next(driver.completed()).data == (b"\0\1\2", b"\3\4\5\6")
