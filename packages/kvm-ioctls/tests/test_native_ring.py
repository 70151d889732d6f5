"""The ring of native writes: order, room, the reader's sleep, several vCPUs."""

import os
import threading

import pytest
from kvm_ioctls import Drop, Hlt, IoOut, NativeExits, NativeRange, Regs, Ring, RingWrite
from kvm_ioctls.testing import FakeRunPage, TinyGuest

# mov dx,0x600; l: mov eax,ecx (in real mode: 66 89 c8); out dx,al; dec cx; jnz l; hlt
COUNT_DOWN = bytes.fromhex("ba0006 6689c8 ee 49 75f9 f4")
REP_OUTSB = bytes.fromhex("ba0006 be0020 f3 6e f4")  # mov dx,0x600; mov si,0x2000; rep outsb; hlt


def kept(ring):
    """Drain a ring of single bytes."""
    return b"".join(write.data for write in ring.drain())


def put(table, data, *, port=0x600, size=1):
    """Write `data` to the table as one port exit; True when C kept it."""
    page = FakeRunPage().put_io(write=True, port=port, size=size, count=len(data) // size, data=data)
    return page.native(table)


@pytest.mark.kvm
def test_a_full_ring_is_an_exit_and_nothing_is_lost():
    """1000 writes through 16 places: what Python is asked came after what the ring held."""
    ring, seen = Ring(16), []
    table = NativeExits([NativeRange("pio", 0x600, 1, write=ring)])
    with TinyGuest(COUNT_DOWN, regs=Regs(rcx=1000)) as guest:
        while (exit_ := guest.vcpu.run(table)) != Hlt():
            batch = ring.drain()
            assert len(batch) == 16
            seen += [*(write.data[0] for write in batch), exit_.data[0]]
        stats = guest.vcpu.stats()
    seen += kept(ring)

    assert seen == [n & 0xFF for n in range(1000, 0, -1)]
    assert table.hits() == (stats.native,) == (1000 - 1000 // 17,)


@pytest.mark.kvm
def test_strings_are_kept_whole_or_not_at_all():
    """KVM may cut a string in pieces; each piece is either in the ring or an exit, in order."""
    text = bytes(range(256)) * 3
    ring, seen = Ring(64), b""
    table = NativeExits([NativeRange("pio", 0x600, 1, write=ring)])
    with TinyGuest(REP_OUTSB, regs=Regs(rcx=len(text))) as guest:
        guest.memory[0x2000 : 0x2000 + len(text)] = text
        while (exit_ := guest.vcpu.run(table)) != Hlt():
            assert isinstance(exit_, IoOut)
            seen += kept(ring) + exit_.data

    assert seen + kept(ring) == text


def test_room_for_a_whole_string():
    """A string that does not fit is left to Python as a whole; what fits afterwards is kept."""
    ring = Ring(4)
    table = NativeExits([NativeRange("pio", 0x600, 2, write=ring)])

    assert [put(table, data) for data in (b"ab", b"cde", b"fg", b"h")] == [True, False, True, False]
    assert kept(ring) == b"abfg"
    assert put(table, b"\1\2\3\4", size=2)
    assert ring.drain() == [RingWrite(0x600, b"\1\2", True), RingWrite(0x600, b"\3\4", True)]
    assert not put(table, b"12345")
    assert ring.drain() == []


def test_addresses_share_a_ring():
    """A ring of two ranges has the writes of both, in order, each with its place and width."""
    ring = Ring(2)
    table = NativeExits(
        [NativeRange("mmio", 2**64 - 8, 8, write=ring), NativeRange("pio", 0x600, 1, write=ring)]
    )

    assert FakeRunPage().put_mmio(write=True, addr=2**64 - 8, size=8, data=b"12345678").native(table)
    assert put(table, b"9")
    assert ring.drain() == [RingWrite(2**64 - 8, b"12345678", False), RingWrite(0x600, b"9", True)]


def test_a_ring_outlives_its_table():
    """The table keeps the ring, and the ring its writes when the table goes."""
    ring = Ring(2)
    table = NativeExits([NativeRange("pio", 0x600, 1, write=ring)])
    put(table, b"x")
    del table

    assert kept(ring) == b"x"


def test_wake_once_a_sleep(eventfd):
    """Only the first write after a drain tells; a full batch tells that there may be more."""
    ring = Ring(4, wake=eventfd)
    table = NativeExits([NativeRange("pio", 0x600, 1, write=ring)])
    for data in (b"a", b"b"):
        put(table, data)
    assert os.eventfd_read(eventfd) == 1
    assert kept(ring) == b"ab"
    put(table, b"cdef")
    assert os.eventfd_read(eventfd) == 1
    assert kept(ring) == b"cdef"
    assert os.eventfd_read(eventfd) == 1
    assert kept(ring) == b""
    with pytest.raises(BlockingIOError):
        os.eventfd_read(eventfd)


def test_no_write_is_left_to_a_sleeping_reader():
    """Four writers, one reader that sleeps on the eventfd: each writer's numbers come, whole and in order."""
    wake, rounds, seen = os.eventfd(0), 5000, {port: [] for port in range(4)}
    ring = Ring(64, wake=wake)
    table = NativeExits([NativeRange("pio", 0, 4, write=ring)])

    def write(port):
        for i in range(rounds):
            while not put(table, i.to_bytes(2, "little"), port=port):
                pass  # full: the reader was woken

    writers = [threading.Thread(target=write, args=(port,)) for port in seen]
    for writer in writers:
        writer.start()
    while sum(map(len, seen.values())) < 4 * 2 * rounds:
        os.eventfd_read(wake)  # a lost wake-up is a hang
        for got in ring.drain():
            seen[got.addr].append(got.data[0])
    for writer in writers:
        writer.join()
    os.close(wake)

    expected = [byte for i in range(rounds) for byte in i.to_bytes(2, "little")]
    assert list(seen.values()) == [expected] * 4


@pytest.mark.kvm
def test_two_vcpus_fill_one_ring():
    """Each vCPU's writes stay in order; one table and one ring for both."""
    ring, seen = Ring(1 << 12), {0x600: [], 0x601: []}
    table = NativeExits([NativeRange("pio", 0x600, 2, write=ring)])
    with (
        TinyGuest(COUNT_DOWN, regs=Regs(rcx=1000)) as one,
        TinyGuest(COUNT_DOWN.replace(b"\xba\0\6", b"\xba\1\6"), regs=Regs(rcx=1000)) as two,
    ):
        ends = []
        threads = [
            threading.Thread(target=lambda guest=guest: ends.append(guest.vcpu.run(table)))
            for guest in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for write in ring.drain():
        seen[write.addr].append(write.data[0])

    assert ends == [Hlt(), Hlt()]
    assert list(seen.values()) == [[n & 0xFF for n in range(1000, 0, -1)]] * 2


@pytest.mark.parametrize("capacity", [0, -4, 3, 1 << 21])
def test_impossible_capacities(capacity):
    """Only powers of two up to a million."""
    with pytest.raises(ValueError, match=rf"^capacity={capacity} is not a power of two in 1\.\.1048576$"):
        Ring(capacity)


def test_wake_must_be_an_eventfd():
    """Anything else could block the vCPU; a ring keeps its own descriptor and gives it back."""
    reader, writer = os.pipe()
    with pytest.raises(ValueError, match=rf"^wake={writer} is pipe:.*, not an eventfd"):
        Ring(wake=writer)
    os.close(reader)
    os.close(writer)
    fd = os.eventfd(0)
    before = len(os.listdir("/proc/self/fd"))
    ring = Ring(wake=fd)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del ring
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_a_ring_cannot_be_read():
    """It is a write action only."""
    with pytest.raises(KeyError):
        NativeExits([NativeRange("pio", 1, 1, read=Ring(2), write=Drop())])
