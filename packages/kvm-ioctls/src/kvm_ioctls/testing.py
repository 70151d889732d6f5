"""For tests of this package and of its users: tiny guests, fake run pages, and the twin of the native table.

``TinyGuest`` needs a /dev/kvm; everything else works anywhere.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self, final

import attrs

from kvm_ioctls._exit_reason import ExitReason
from kvm_ioctls._exits import Exit, exit_of
from kvm_ioctls._ffi import check, ffi, lib
from kvm_ioctls._kvm import Kvm
from kvm_ioctls._native import Counter, Drop, Eventfd, Latch, NativeExits, NativeRange
from kvm_ioctls._native_ring import Ring
from kvm_ioctls._rings import RingWrite
from kvm_ioctls._vm import VmFd
from kvm_ioctls._x86_64._state import Regs, Segment

__all__ = ("PAGE_SIZE", "FakeRunPage", "TinyGuest", "TwinNative")

PAGE_SIZE = 4096
"""Bytes of a page of the host."""
_CODE64 = {"present": 1, "s": 1, "g": 1, "limit": 0xFFFF_FFFF}


@final
class TinyGuest:
    """A VM with one vCPU, some memory and hand-assembled code; a context manager that closes all of it.

    Args:
        code: Machine code, put at guest physical address `entry`.
        entry: Where it goes and starts; page tables of a 64-bit guest take 0x9000..0xbfff.
        memory_size: Bytes of memory from guest physical address 0.
        regs: Start values; rip is replaced by `entry`, rsp by 0x8000 when it is 0.
        long_mode: Start in 64-bit mode with the first GiB mapped one to one, instead of real mode.
        irqchip: Create the in-kernel interrupt controllers.
        flags: Of the memory slot (``MemFlags``), which has id 0.
        prepare: Called with the VM before it gets a vCPU, for capabilities that must come first.

    Raises:
        KvmError: KVM refuses any step.
    """

    def __init__(
        self,
        code: bytes,
        *,
        entry: int = 0x1000,
        memory_size: int = 0x1_0000,
        regs: Regs | None = None,
        long_mode: bool = False,
        irqchip: bool = False,
        flags: int = 0,
        prepare: Callable[[VmFd], object] | None = None,
    ) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.memory = stack.enter_context(mmap.mmap(-1, memory_size))
            self.kvm = stack.enter_context(Kvm())
            self.vm = stack.enter_context(self.kvm.create_vm())
            if irqchip:
                self.vm.create_irq_chip()
            if prepare is not None:
                prepare(self.vm)
            # SAFETY: the mapping is closed after vCPU and VM; the pointer object goes away at once, its
            # number stays valid until then.
            address = int(ffi.cast("uintptr_t", ffi.from_buffer(self.memory)))
            self.vm.set_user_memory_region(
                0, guest_phys_addr=0, memory_size=memory_size, userspace_addr=address, flags=flags
            )
            self.vcpu = stack.enter_context(self.vm.create_vcpu(0))
            self.memory[entry : entry + len(code)] = code
            self._start(entry, regs or Regs(), long_mode=long_mode)
            self._stack = stack.pop_all()

    def _start(self, entry: int, regs: Regs, *, long_mode: bool) -> None:
        if long_mode:
            self._long_mode()
        else:
            sregs = self.vcpu.get_sregs()
            sregs.cs.base = sregs.cs.selector = 0
            self.vcpu.set_sregs(sregs)
        self.vcpu.set_regs(attrs.evolve(regs, rip=entry, rsp=regs.rsp or 0x8000, rflags=regs.rflags | 2))

    def _long_mode(self) -> None:
        pml4, pdpt, pd = 0x9000, 0xA000, 0xB000
        struct.pack_into("<Q", self.memory, pml4, pdpt | 3)
        struct.pack_into("<Q", self.memory, pdpt, pd | 3)
        for i in range(512):
            struct.pack_into("<Q", self.memory, pd + 8 * i, i << 21 | 0x83)  # present, writable, 2 MiB
        # A complete KVM refuses EFER.LME to a guest whose CPUID does not offer long mode.
        self.vcpu.set_cpuid2(self.kvm.get_supported_cpuid())
        sregs = self.vcpu.get_sregs()
        sregs.cs = Segment(**_CODE64, selector=8, type=11, l=1)
        data = Segment(**_CODE64, selector=16, type=3, db=1)
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data
        sregs.cr3, sregs.cr4 = pml4, 1 << 5  # PAE
        sregs.cr0 = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 1 | 1  # PG NE ET MP PE
        sregs.efer = 1 << 10 | 1 << 8  # LMA LME
        self.vcpu.set_sregs(sregs)

    def close(self) -> None:
        """Close vCPU, VM, /dev/kvm and memory, in this order."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class FakeRunPage:
    """A run page made by hand, for the C decoder and the C native table without any KVM.

    Args:
        pages: 4096-byte pages; the kernel's own has port data in the second.
    """

    def __init__(self, pages: int = 3) -> None:
        self.page = bytearray(pages * PAGE_SIZE)
        self._exit = ffi.new("struct kvmx_exit *")
        # SAFETY: from_buffer pins the bytearray, and C gets its true length with it.
        self._pointer = ffi.from_buffer(self.page)
        # SAFETY: a view of exactly the one struct, which self._exit owns.
        self._view = memoryview(ffi.buffer(self._exit))

    def put(self, reason: int, body: bytes) -> Self:
        """Set exit_reason and the bytes of the exit union (at most 256)."""
        struct.pack_into("<I", self.page, 8, reason)
        self.page[32 : 32 + len(body)] = body
        return self

    def put_io(
        self,
        *,
        write: bool,
        port: int,
        size: int,
        count: int = 1,
        data: bytes = b"",
        data_offset: int = PAGE_SIZE,
    ) -> Self:
        """Set up a port exit, with its data where `data_offset` says."""
        self.page[data_offset : data_offset + len(data)] = data
        return self.put(ExitReason.IO, struct.pack("<BBHIQ", int(write), size, port, count, data_offset))

    def put_mmio(self, *, write: bool, addr: int, size: int, data: bytes = b"") -> Self:
        """Set up an MMIO exit."""
        return self.put(ExitReason.MMIO, struct.pack("<Q8sIB", addr, data, size, int(write)))

    def decode(self) -> Exit:
        """Run the C decoder.

        Raises:
            KvmAbiError: It refuses the page.
        """
        # SAFETY: C gets the true length of the page.
        check(lib.kvmx_decode(self._pointer, len(self.page), self._exit), "decoding", "a fake run page")
        return exit_of(self._view, self._data)

    def native(self, table: NativeExits) -> bool:
        """Decode, then let the C table answer; say whether it did.

        Raises:
            KvmAbiError: The decoder refuses the page.
        """
        self.decode()
        # SAFETY: _exit was just filled from this very page, which bounds what C touches.
        return lib.kvmx_native(table.pointer, self._exit, self._pointer) == 1

    def _data(self, size: int) -> bytes:
        start = int(self._exit.data_offset)
        return bytes(self.page[start : start + size])


@final
class TwinNative:
    """The native table as a specification: what C must do, access by access, in plain Python.

    Args:
        ranges: The same ranges a ``NativeExits`` got. Cells and eventfds are shared with it, so give the
            twin ranges of its own when both run.
    """

    def __init__(self, ranges: tuple[NativeRange, ...]) -> None:
        self.ranges = ranges
        self._kept: dict[int, list[RingWrite]] = {}

    def find(self, space: str, addr: int, size: int) -> NativeRange | None:
        """Return the range that holds the whole access."""
        for r in self.ranges:
            if r.space == space and r.base <= addr and addr + size - 1 <= r.last:
                return r
        return None

    def read(self, space: str, addr: int, size: int, count: int = 1) -> bytes | None:
        """Return what the guest reads, or None when Python has to answer."""
        found = self.find(space, addr, size)
        if found is None or found.read is None:
            return None
        value = found.read.value & ((1 << 8 * size) - 1)
        return value.to_bytes(size, "little") * count

    def write(self, space: str, addr: int, size: int, data: bytes) -> bool:
        """Do what a write of `data` does; False when Python has to."""
        found = self.find(space, addr, size)
        match found.write if found is not None else None:
            case Drop():
                return True
            case Latch() as latch:
                latch.value = int.from_bytes(data[-size:], "little")
                return True
            case Counter() as counter:
                counter.value = (counter.value + len(data) // size) % 2**64
                return True
            case Eventfd(fd=fd):
                os.eventfd_write(fd, len(data) // size)
                return True
            case Ring() as ring:
                return self._keep(ring, space, addr, [data[i : i + size] for i in range(0, len(data), size)])
        return False

    def _keep(self, ring: Ring, space: str, addr: int, elements: list[bytes]) -> bool:
        kept = self._kept.setdefault(id(ring), [])
        fits = len(kept) + len(elements) <= ring.capacity
        if fits:
            kept += [RingWrite(addr, element, space == "pio") for element in elements]
        return fits

    def drain(self, ring: Ring) -> list[RingWrite]:
        """Take what the twin has kept where C would use `ring`, whose capacity counts."""
        return self._kept.pop(id(ring), [])
