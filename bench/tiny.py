"""A guest of a few instructions that only makes exits, in our VMM's classes and in the C floor."""

import itertools
import struct
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from vm_device import IoManager
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import KvmHypervisor, NativeAnswer
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

PORT: Final = 0x80
DONE: Final = 0x81  # written after the last exit of a round
CODE: Final = 0x1000
STAMPS: Final = 0x10000
RAM: Final = 0x20000
MOST: Final = 0x4000  # exits of a round: a stamp each


def code(count: int, *, stamps: bool = False) -> bytes:
    """Real-mode code: `count` writes to PORT, one to DONE, and from the start again.

    Args:
        count: 2 to `MOST`.
        stamps: leave the low half of the time stamp counter at STAMPS before each write.
    """
    if not 2 <= count <= MOST:
        raise ValueError(f"count is {count}, must be from 2 to {MOST}")
    stamp = b"\x0f\x31\x66\xab" if stamps else b""  # rdtsc; stosd
    body = stamp + bytes((0xE6, PORT))  # out PORT, al
    start = b"\x31\xff\xb9" + struct.pack("<H", count)  # xor di, di; mov cx, count
    loop = start + body + bytes((0xE2, 0x100 - len(body) - 2))  # loop
    end = loop + bytes((0xE6, DONE))
    return end + bytes((0xEB, 0x100 - len(end) - 2))  # jmp


class RoundOver(Exception):  # noqa: N818 - no error: how the device on DONE leaves the run loop
    """The guest wrote to DONE."""


class Device:
    """The least that a device can be."""

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - a bus device's signature
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


class _End(Device):
    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 - likewise
        raise RoundOver


class Ours:
    """The guest on our VM, with our buses; PORT is answered by C or by a device in Python.

    Args:
        guest: its machine code.
        native: whether C answers PORT.
    """

    def __init__(self, guest: bytes, *, native: bool) -> None:
        """Everything a VMM needs for it."""
        self._stack = ExitStack()
        region = GuestRegionMmap.memfd(0, RAM)
        self.memory = GuestMemoryMmap([region])
        self.memory.write(CODE, guest)
        io = IoManager()
        io.register(AddressRange(AddressSpace.PIO, DONE, 1), _End())
        with ExitStack() as stack:
            self.vm = stack.enter_context(KvmHypervisor()).create_vm()
            stack.callback(self.vm.close)
            self.vm.set_memory_slot(0, 0, RAM, region.host_address)
            where = AddressRange(AddressSpace.PIO, PORT, 1)
            if native:
                self.vm.set_native_answers([NativeAnswer(where, drop_writes=True)])
            else:
                io.register(where, Device())
            self.vcpu = self.vm.create_vcpu(0)
            stack.callback(self.vcpu.close)
            self._enter()
            self._stack = stack.pop_all()
        self._reader = io.reader("bench")

    def _enter(self) -> None:
        fd = self.vcpu.fd
        sregs = fd.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        sregs.es.base, sregs.es.selector = STAMPS, STAMPS >> 4
        fd.set_sregs(sregs)
        fd.set_regs(type(fd.get_regs())(rip=CODE, rflags=2))

    def round(self) -> int:
        """Run until the guest has written to DONE; return the ns."""
        start = time.perf_counter_ns()
        try:
            self.vcpu.run(self._reader)
        except RoundOver:
            return time.perf_counter_ns() - start
        raise RuntimeError("the guest stopped")

    def stamps(self, count: int) -> list[int]:
        """Return the ticks between the exits of the last round, sorted."""
        raw = struct.unpack(f"<{count}I", self.memory.read(STAMPS, 4 * count))
        return sorted((b - a) & 0xFFFF_FFFF for a, b in itertools.pairwise(raw))

    def ns_per_tick(self) -> float:
        """How long a tick of the guest's time stamp counter is."""
        return 1e6 / self.vcpu.fd.get_tsc_khz()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def percentiles(ticks: list[int]) -> tuple[int, int, int]:
    """p50, p99 and maximum of sorted distances, as the C floor takes them."""
    return ticks[len(ticks) // 2], ticks[len(ticks) * 99 // 100], ticks[-1]
