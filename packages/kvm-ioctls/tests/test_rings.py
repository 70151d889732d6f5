"""Dirty rings and coalesced writes: the C that drains them, and the kernel that fills them."""

import mmap
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import DirtyPage, Hlt, IoOut, Kvm, KvmAbiError, KvmOSError, MemFlags, Regs, RingWrite
from kvm_ioctls._ffi import check, ffi, lib
from kvm_ioctls.testing import TinyGuest

ROOM = (mmap.PAGESIZE - 8) // 24


def drain(first, last, entries, room=ROOM):
    """What C takes from a ring made with struct, and the index it leaves."""
    ring = bytearray(8 + 24 * room)
    struct.pack_into("<II", ring, 0, first, last)
    for i, (addr, length, pio, data) in enumerate(entries):
        struct.pack_into("<QII8s", ring, 8 + 24 * i, addr, length, pio, data)
    out = ffi.new("struct kvmx_write[]", room)
    count = check(lib.kvmx_coalesced_drain(ffi.from_buffer(ring), len(ring), out), "drain", "ring")
    taken = [(w.addr, w.size, w.pio, w.data.to_bytes(8, "little")) for w in (out[i] for i in range(count))]
    return taken, struct.unpack_from("<II", ring)


ENTRY = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 8), st.integers(0, 1), st.binary(min_size=8, max_size=8)
)


@given(st.lists(ENTRY, min_size=ROOM, max_size=ROOM), st.integers(0, ROOM - 1), st.integers(0, ROOM - 1))
def test_coalesced_ring_is_drained_in_order(entries, first, last):
    """From first to last with the wrap, and then it is empty."""
    taken, indices = drain(first, last, entries)

    around = entries[first:] + entries
    assert taken == around[: (last - first) % ROOM]
    assert indices == (last, last)


@pytest.mark.parametrize(("first", "last"), [(ROOM, 0), (0, ROOM), (2**32 - 1, 1)])
def test_impossible_indices_are_refused(first, last):
    """An index beyond the ring is never followed."""
    with pytest.raises(KvmAbiError):
        drain(first, last, [])


def test_impossible_lengths_are_refused():
    """An entry of more than 8 bytes is no write."""
    with pytest.raises(KvmAbiError):
        drain(0, 1, [(0, 9, 0, bytes(8))])


@given(st.data(), st.integers(1, 40), st.integers(0, 39))
def test_dirty_ring_is_harvested_until_the_first_clean_entry(data, size, start):
    """Dirty entries from the index on are taken and marked for reset; the others stay as they are."""
    start %= size
    flags = data.draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 3]), min_size=size, max_size=size))
    ring = bytearray(b"".join(struct.pack("<IIQ", flag, i, 1000 + i) for i, flag in enumerate(flags)))
    at = ffi.new("uint32_t *", start)
    out = ffi.new("struct kvmx_dirty[]", size)

    count = lib.kvmx_dirty_harvest(ffi.from_buffer(ring), size, at, out)

    order = [(start + i) % size for i in range(size)]
    expected = []
    for i in order:
        if flags[i] != 1:
            break
        expected.append(i)
    assert [(out[i].slot, out[i].page) for i in range(count)] == [(i, 1000 + i) for i in expected]
    assert at[0] == (start + len(expected)) % size
    after = [struct.unpack_from("<I", ring, 16 * i)[0] for i in range(size)]
    assert after == [2 if i in expected else flag for i, flag in enumerate(flags)]


def test_a_ring_without_entries_is_refused():
    """Neither a size of zero nor an index beyond the ring is followed."""
    at = ffi.new("uint32_t *", 3)
    out = ffi.new("struct kvmx_dirty[]", 1)
    assert [lib.kvmx_dirty_harvest(ffi.NULL, size, at, out) for size in (0, 3)] == [-22, -22]


@pytest.mark.kvm
def test_coalesced_ports_do_not_exit():
    """Two writes to a zone wait in the ring until a third one elsewhere exits."""
    code = bytes.fromhex("b80700 e680 b80900 e680 e681 f4")  # out 0x80, 7; out 0x80, 9; out 0x81, 9
    with TinyGuest(code) as guest:
        guest.vm.register_coalesced_mmio(0x80, 1, pio=True)
        with guest.vcpu.map_coalesced_ring() as ring:
            assert guest.vcpu.run() == IoOut(0x81, 1, 1, b"\x09")
            assert ring.drain() == [RingWrite(0x80, b"\x07", True), RingWrite(0x80, b"\x09", True)]
            assert ring.drain() == []
        assert ring.closed
        guest.vm.unregister_coalesced_mmio(0x80, 1, pio=True)
        assert guest.vcpu.run() == Hlt()


@pytest.mark.kvm
def test_impossible_zones_are_refused():
    """A zone of no bytes, or beyond 64 bits."""
    with Kvm() as kvm, kvm.create_vm() as vm:
        for addr, size in ((0, 0), (1 << 64, 1), (0, 1 << 32)):
            with pytest.raises(ValueError, match=rf"^addr={addr:#x}, size={size:#x} is no zone"):
                vm.register_coalesced_mmio(addr, size)
        with pytest.raises(KvmOSError, match=r"^KVM_RESET_DIRTY_RINGS on "):
            vm.reset_dirty_rings()


def dirty_guest(stack_page, ring_bytes):
    """Return memory, VM and vCPU of a guest that writes to page 3 and page 5 and halts."""
    memory = mmap.mmap(-1, 0x10000)
    memory[0x1000:0x1009] = bytes.fromhex("a30030 a30050 f4 90 90")  # mov [0x3000], ax; mov [0x5000], ax; hlt
    kvm = Kvm()
    vm = kvm.create_vm()
    cap, most = vm.dirty_ring_cap()
    assert most >= ring_bytes
    vm.enable_cap(cap, [ring_bytes])
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    vm.set_user_memory_region(
        7, guest_phys_addr=0, memory_size=0x10000, userspace_addr=address, flags=MemFlags.LOG_DIRTY_PAGES
    )
    vcpu = vm.create_vcpu(0)
    sregs = vcpu.get_sregs()
    sregs.cs.base = sregs.cs.selector = 0
    vcpu.set_sregs(sregs)
    vcpu.set_regs(Regs(rip=0x1000, rsp=stack_page))
    return kvm, vm, vcpu, memory


@pytest.mark.kvm_full
def test_dirty_ring_tells_the_written_pages():
    """The ring has the two pages with their slot; after a reset a second run tells them again."""
    kvm, vm, vcpu, memory = dirty_guest(0x8000, 65536)
    with kvm, vm, vcpu, vcpu.map_dirty_ring(65536) as ring:
        for _ in range(2):
            assert vcpu.run() == Hlt()
            taken = ring.harvest()
            assert {DirtyPage(7, 3), DirtyPage(7, 5)} <= set(taken)
            assert ring.harvest() == []
            assert vm.reset_dirty_rings() == len(taken)
            vcpu.set_regs(Regs(rip=0x1000, rsp=0x8000))
    assert bytes(memory[0x3000:0x3002]) == b"\0\0"


@pytest.mark.kvm
def test_rings_refuse_a_forked_child():
    """A child learns that the ring is its parent's."""
    with TinyGuest(b"\xf4") as guest, guest.vcpu.map_coalesced_ring() as ring:
        pid = os.fork()
        if pid == 0:
            try:
                ring.drain()
            except Exception as err:
                os._exit(0 if type(err).__name__ == "ForkedError" else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ring.drain() == []
