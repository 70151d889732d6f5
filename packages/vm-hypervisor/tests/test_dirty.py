"""What a guest wrote, as KVM's dirty log or dirty ring tells it, merged with what the VMM wrote."""

from contextlib import ExitStack

import kvm_ioctls as kvm
import pytest
from vm_hypervisor import MemorySlots
from vmm_memory import AtomicBitmap, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap

OUTSIDE = 0x2_0000  # es = 0x2000 reaches it
PAGE = 4096
PAGES = 16
DONE = "e6 f4"  # out 0xf4, al


def stores(*pages):
    """Code that writes a byte into pages of the 64 KiB from OUTSIDE on, in real mode."""
    return "b8 00 20 8e c0 " + " ".join(f"26 a2 34 {page:x}2" for page in pages) + DONE  # mov es:[0xP234], al


def touched(unit, *ranges):
    """The pages of `unit` bytes that byte ranges hit."""
    return {page for start, size in ranges for page in range(start // unit, (start + size - 1) // unit + 1)}


def dirty_pages(bitmap):
    """The dirty page numbers, from the ranges."""
    return touched(bitmap.page_size, *bitmap.ranges())


def guest_pages(*pages):
    """Byte ranges of whole guest pages."""
    return [(page * PAGE, PAGE) for page in pages]


@pytest.mark.kvm
@pytest.mark.parametrize("page_size", [64, 512, PAGE, 2 * PAGE, 8 * PAGE, 1 << 21])
def test_the_log_of_a_guest_joins_the_writes_of_the_vmm(machine, page_size):
    """Whatever the bitmap's page size: all that either wrote, and nothing else, once."""
    region = GuestRegionMmap.memfd(
        OUTSIDE, PAGES * PAGE, name="tracked", dirty=True, dirty_page_size=page_size
    )
    machine.atomic.insert_region(region)
    slot = machine.slots.slot_of(region)
    mine = [(5 * PAGE + 3, 10), (7 * PAGE - 1, 2)]
    for start, size in mine:
        machine.atomic.memory().write(OUTSIDE + start, b"v" * size)
    assert dirty_pages(region.bitmap) == touched(page_size, *mine)
    machine.run(machine.vcpu(stores(2, 3, 6, 15)))
    region.bitmap.merge(machine.vm.dirty_log(slot))
    assert dirty_pages(region.bitmap) == touched(page_size, *mine, *guest_pages(2, 3, 6, 15))
    taken = region.bitmap.get_and_reset()
    assert dirty_pages(taken) == touched(page_size, *mine, *guest_pages(2, 3, 6, 15))
    region.bitmap.merge(machine.vm.dirty_log(slot))
    assert region.bitmap.count() == 0


@pytest.mark.kvm
def test_writes_go_on_while_logs_are_merged(machine):
    """The next round has what the guest wrote since, also to a page of the last one; ranges are in bytes."""
    region = GuestRegionMmap.memfd(OUTSIDE, PAGES * PAGE, name="rounds", dirty=True)
    machine.atomic.insert_region(region)
    slot = machine.slots.slot_of(region)
    rounds = [
        ((1, 2), 3, [(PAGE, 3 * PAGE)]),
        ((2, 9), 9, [(2 * PAGE, PAGE), (9 * PAGE, PAGE)]),
        ((0, 15), 7, [(0, PAGE), (7 * PAGE, PAGE), (15 * PAGE, PAGE)]),
    ]
    vcpu = machine.vcpu(" ".join(stores(*guest) for guest, _, _ in rounds))
    for _, mine, expected in rounds:
        machine.run(vcpu)
        region.bitmap.merge(machine.vm.dirty_log(slot))
        machine.atomic.memory().write(OUTSIDE + mine * PAGE, b"v")
        assert list(region.bitmap.get_and_reset().ranges()) == expected


@pytest.mark.kvm
def test_a_slot_that_begins_inside_a_region(machine):
    """Its log counts from the slot's base: it is merged by its ranges, moved to where the slot begins."""
    inside, size = 6 * PAGE, 5 * PAGE
    region = GuestRegionMmap.memfd(OUTSIDE - inside, PAGES * PAGE, name="part", dirty=True)
    memory = GuestMemoryMmap([region])
    machine.vm.set_memory_slot(9, OUTSIDE, size, region.host_address + inside, log_dirty=True)
    memory.write(OUTSIDE - 4 * PAGE, b"v")
    machine.run(machine.vcpu(stores(0, 1, 4)))
    log = AtomicBitmap(size)
    log.merge(machine.vm.dirty_log(9))
    for start, length in log.ranges():
        region.bitmap.set_addr_range(inside + start, length)
    assert memory.take_dirty() == (
        (OUTSIDE - 4 * PAGE, PAGE),
        (OUTSIDE, 2 * PAGE),
        (OUTSIDE + 4 * PAGE, PAGE),
    )
    machine.vm.remove_memory_slot(9)


@pytest.mark.kvm
def test_a_log_of_another_slot_is_refused(machine):
    """The log of a slot of another length cannot be meant; the bitmap stays as it was."""
    region = GuestRegionMmap.memfd(OUTSIDE, 128 * PAGE, name="long", dirty=True)
    machine.atomic.insert_region(region)
    machine.run(machine.vcpu(stores(4)))
    other = AtomicBitmap(PAGE)
    with pytest.raises(ValueError, match=r"^dirty log has 16 bytes, must have 8 for 1 pages of 0x1000$"):
        other.merge(machine.vm.dirty_log(machine.slots.slot_of(region)))
    assert other.count() == 0


class RingMachine:
    """A guest whose writes KVM tells by a dirty ring; 64 KiB of RAM and a tracked region at OUTSIDE."""

    RING = 65536

    def __init__(self, stack, page_size):
        self.fd = stack.enter_context(stack.enter_context(kvm.Kvm()).create_vm())
        cap, most = self.fd.dirty_ring_cap()
        assert most >= self.RING
        self.fd.enable_cap(cap, [self.RING])
        self.region = GuestRegionMmap.memfd(
            OUTSIDE, PAGES * PAGE, name="ring", dirty=True, dirty_page_size=page_size
        )
        self.slots = MemorySlots(self)
        atomic = GuestMemoryAtomic()
        atomic.add_listener(self.slots)
        atomic.insert_region(GuestRegionMmap.memfd(0, 0x1_0000, name="ram"))
        atomic.insert_region(self.region)
        self.memory = atomic.memory()
        self.vcpu = stack.enter_context(self.fd.create_vcpu(0))
        self.ring = stack.enter_context(self.vcpu.map_dirty_ring(self.RING))

    def set_memory_slot(self, slot, base, size, host_address, *, read_only=False, log_dirty=False):
        """Back guest memory, for MemorySlots."""
        assert not read_only
        self.fd.set_user_memory_region(
            slot,
            guest_phys_addr=base,
            memory_size=size,
            userspace_addr=host_address,
            flags=kvm.MemFlags.LOG_DIRTY_PAGES if log_dirty else kvm.MemFlags.NONE,
        )

    def start(self, code):
        """Let the vCPU begin with this code."""
        self.memory.write(0x1000, bytes.fromhex(code))
        sregs = self.vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        self.vcpu.set_sregs(sregs)
        self.vcpu.set_regs(kvm.Regs(rip=0x1000, rsp=0x8000, rflags=2))


@pytest.mark.kvm_full
@pytest.mark.parametrize("page_size", [512, PAGE, 8 * PAGE])
def test_the_ring_of_a_guest_joins_the_writes_of_the_vmm(page_size):
    """What is harvested goes page by page into the bitmap of its slot's region; after the reset, again."""
    with ExitStack() as stack:
        machine = RingMachine(stack, page_size)
        region, slot = machine.region, machine.slots.slot_of(machine.region)
        rounds = ((2, 3, 6), (5 * PAGE + 3, 2 * PAGE)), ((3, 9), (9 * PAGE - 1, 2))
        machine.start(" ".join(stores(*guest) for guest, _ in rounds))
        for guest, mine in rounds:
            machine.memory.write(OUTSIDE + mine[0], b"v" * mine[1])
            assert isinstance(machine.vcpu.run(), kvm.IoOut)
            taken = machine.ring.harvest()
            for page in taken:
                if page.slot == slot:
                    region.bitmap.set_addr_range(page.page * PAGE, PAGE)
            assert machine.fd.reset_dirty_rings() == len(taken)
            expected = touched(page_size, mine, *guest_pages(*guest))
            assert dirty_pages(region.bitmap.get_and_reset()) == expected
            assert region.bitmap.count() == 0
