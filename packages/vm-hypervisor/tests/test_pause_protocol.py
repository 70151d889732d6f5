"""Pausing as a protocol, on a real KVM: what is paused executes nothing, and nothing is half done.

The guests count in memory, and what they read is a number that the device counts up; so each pause can be
checked against both. `make test-long` does a hundred thousand of them, on AArch64 five thousand.
"""

import os
import statistics
import subprocess
import sys
import time

import attrs
import pytest
from kvm_ioctls import ForkedError, MpState, arm64_core_reg
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import NativeAnswer, VcpuManager
from vm_hypervisor.arch.aarch64 import EntryState
from vm_hypervisor.testing import RecordingOps
from vmm_testhost.pytest_plugin import LONG

CYCLES = 100_000 if LONG else 200
# In an emulated host on a busy machine a cycle takes 30 to 60 ms: five minutes of each kind.
ARM64_CYCLES = 5_000 if LONG else 200
COUNTERS, WINDOW = 0x4000, 0xD000_0000
IGNORED, CONSTANT = WINDOW + 0x1000, WINDOW + 0x2000
PATIENCE = 60


@attrs.frozen
class Kind:
    """A guest that never stops.

    `{0}` in its code is where it counts. A reader counts what it read, and `stored` is the offset of the
    instruction that stores it; others count on by themselves.
    """

    code: str
    stored: int | None = None

    def at(self, index):
        """The code of vCPU `index`."""
        return self.code.format((COUNTERS + 4 * index).to_bytes(2, "little").hex())


KINDS = {
    "never exits": Kind("66ff06{0} ebf9"),  # l: inc dword [n]; jmp l
    "exits in C": Kind("66ff06{0} e680 ebf7"),  # l: inc dword [n]; out 0x80, al; jmp l
    "reads ports": Kind("66e570 66a3{0} ebf7", 3),  # l: in eax, 0x70; mov [n], eax; jmp l
    "reads memory": Kind("2666a10000 66a3{0} ebf5", 5),  # l: mov eax, es:[0]; mov [n], eax; jmp l
}
# The same for AArch64, which has no ports. X1 is where it counts, X2, X4 and X5 are the device's registers.
ARM64_KINDS = {
    "never exits": lambda code: code.load(3, 1).add(3, 1).store(3, 1),
    "exits in C": lambda code: code.load(3, 1).add(3, 1).store(3, 1).store(3, 4).load(6, 5),
    "reads memory": lambda code: code.load(3, 2).store(3, 1),
    "reads and writes": lambda code: code.load(3, 2).store(3, 1).store(3, 2),
}


def until(condition, what):
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.0002)  # on one processor the guest has to have it


class CountingOps(RecordingOps):
    """Each read gives the next number; nothing is noted, for there are millions."""

    def __init__(self):
        super().__init__()
        self.given = self.taken = 0

    def _read(self, space, address, size):
        assert (space, address, size) in {("pio", 0x70, 4), ("mmio", WINDOW, 4)}
        self.given += 1
        return self.given & 0xFFFF_FFFF

    def mmio_write(self, address, size, value, /):
        """What was read last comes back."""
        assert (address, size, value) == (WINDOW, 4, self.given & 0xFFFF_FFFF)
        self.taken = self.given


class Guests:
    """vCPUs of some kinds in one machine, and what holds of each while it is paused."""

    native = (NativeAnswer(AddressRange(AddressSpace.PIO, 0x80, 1), drop_writes=True),)

    def __init__(self, machine, kinds):
        self.machine, self.kinds = machine, kinds
        machine.vm.set_native_answers(self.native)
        self.vcpus = self.create()
        for vcpu in self.vcpus:
            vcpu.fd.set_mp_state(MpState.RUNNABLE)
        self.ops = [CountingOps() for _ in kinds]
        self.manager = VcpuManager(
            self.vcpus,
            lambda vcpu: self.ops[vcpu.index],
            lambda stop: pytest.fail(str(stop)),
            on_thread_start=machine.hypervisor.prepare_vcpu_thread,
        )

    def create(self):
        """Return the vCPUs at the start of their code."""
        vcpus = []
        for index, kind in enumerate(self.kinds):
            vcpu = self.machine.vcpu(KINDS[kind].at(index), index=index, entry=0x1000 + 0x100 * index)
            sregs = vcpu.fd.get_sregs()
            sregs.es.base = WINDOW
            vcpu.fd.set_sregs(sregs)
            vcpus.append(vcpu)
        return vcpus

    def counter(self, index):
        """The address where this one counts."""
        return COUNTERS + 4 * index

    def read_last(self, index):
        """What a reader's register holds, and whether storing it comes next; None for another kind."""
        stored = KINDS[self.kinds[index]].stored
        if stored is None:
            return None
        regs = self.vcpus[index].fd.get_regs()
        return regs.rax, regs.rip == 0x1000 + 0x100 * index + stored

    def counters(self):
        """What each guest has counted."""
        return [self.machine.memory.load(self.counter(index), 4) for index in range(len(self.kinds))]

    def wait_for_progress(self):
        """Until each guest has moved."""
        before = self.counters()
        until(
            lambda: all(now != then for now, then in zip(self.counters(), before, strict=True)),
            "every guest moves",
        )

    def check_paused(self):
        """Every answer is in its register, and stored unless the store comes next."""
        counters = self.counters()
        for index, ops in enumerate(self.ops):
            if (found := self.read_last(index)) is None:
                continue
            answer, about_to_store = found
            assert answer == ops.given, "an answered read is complete"
            assert counters[index] == ops.given - about_to_store
        return counters


class Arm64Guests(Guests):
    """The same on AArch64."""

    # The MMU is off: these share memory with the host where that is coherent all the same (FEAT_S2FWB).

    native = (
        NativeAnswer(AddressRange(AddressSpace.MMIO, IGNORED, 4), drop_writes=True),
        NativeAnswer(AddressRange(AddressSpace.MMIO, CONSTANT, 4), read=0xC0FFEE),
    )

    def create(self):
        """Return the vCPUs at the start of their code, and give the machine its GIC."""
        assembler = pytest.importorskip("arm64_code", reason="it is in the repository's tools")
        vcpus, self.stores = [], []
        for index, kind in enumerate(self.kinds):
            entry = self.machine.ram + 0x1000 + 0x100 * index
            code = assembler.Code().move(1, self.counter(index)).move(2, WINDOW)
            loop = len(code.move(4, IGNORED).move(5, CONSTANT))
            self.machine.memory.write(entry, bytes(ARM64_KINDS[kind](code).jump(loop)))
            self.stores.append(entry + 4 * (loop + 1) if kind.startswith("reads") else None)
            vcpus.append(self.machine.vcpu(index))
            vcpus[-1].set_entry_state(EntryState(pc=entry))
        self.machine.vm.create_gic(self.machine.gic)
        return vcpus

    def counter(self, index):
        """The address where this one counts."""
        return self.machine.ram + COUNTERS + 4 * index

    def read_last(self, index):
        """The same of X3 and PC; what C answers is complete as well."""
        x3, x6, pc = (self.vcpus[index].fd.get_one_reg(arm64_core_reg(place)) for place in (24, 48, 256))
        if self.kinds[index] == "exits in C":
            assert x6 in (0, 0xC0FFEE), "0 before its first read"
        if self.stores[index] is None:
            return None
        store = self.stores[index]
        if self.kinds[index] == "reads and writes":
            assert self.ops[index].taken == x3 - (pc in (store, store + 4)), "a write is complete"
        return x3, pc == store


def report(capsys, what, latencies):
    """Print how long the pauses took."""
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    figures = f"p50 {cuts[49] / 1e3:.0f}, p99 {cuts[98] / 1e3:.0f}, max {max(latencies) / 1e3:.0f} us"
    with capsys.disabled():
        print(f"\n{len(latencies)} pauses, {what}: {figures}", end="")


def cycle(guests, cycles):
    """Pause and resume; return how many ns the pauses took that found every guest running."""
    latencies = []
    for number in range(cycles):
        running = number % 4 != 0  # or perhaps not yet entered again
        if running:
            guests.wait_for_progress()
        begin = time.perf_counter_ns()
        guests.manager.pause(PATIENCE)
        latencies += [time.perf_counter_ns() - begin] if running else []
        standing = guests.check_paused()
        if number % 64 == 0:
            time.sleep(0.001)
        assert guests.counters() == standing, "nothing runs while it is paused"
        guests.manager.resume()
    guests.wait_for_progress()
    return latencies


def instances(arch, mark, kinds):
    """Every kind alone on a host of this architecture, and all of them."""
    for some in (*((kind,) for kind in kinds), tuple(kinds)):
        yield pytest.param(
            arch, some, marks=mark, id=f"{arch}-{some[0] if len(some) == 1 else 'all at once'}"
        )


@pytest.mark.parametrize(
    ("arch", "kinds"),
    [
        *instances("x86_64", pytest.mark.kvm, KINDS),
        *instances("aarch64", pytest.mark.arm64, ARM64_KINDS),
    ],
)
def test_pause_and_resume(request, capsys, arch, kinds):
    """A standstill each time, nothing pending, and every guest goes on afterwards."""
    foreign = arch == "aarch64"
    machine = request.getfixturevalue("arm64_machine" if foreign else "machine")
    guests = (Arm64Guests if foreign else Guests)(machine, kinds)
    cycles = ARM64_CYCLES if foreign else CYCLES
    guests.manager.start()
    try:
        latencies = cycle(guests, cycles if len(kinds) == 1 else cycles // 4)
    finally:
        guests.manager.stop()
    report(capsys, ", ".join(kinds), latencies)


# vCPU 0: w: cmp byte [0x5000], 1; jne w; mov byte [0x5000], 0; INIT to APIC 1; the same with 2 and a start-up
# message for 0x2000; all over again. es is the local APIC's page: 0x310 the target, 0x300 the command.
STARTER = """
803e005001 75f9 c606005000 6626c70610030000 0001 6626c706000300450000
803e005002 75f9 c606005000 6626c706000302460000 ebc8
"""
INIT, START = 1, 2
STATES = {MpState.RUNNABLE, MpState.UNINITIALIZED, MpState.INIT_RECEIVED}
STARTED = "66ff060440 ebf9"  # inc dword [0x4004]; jmp back


@pytest.mark.kvm
def test_processors_that_wait_for_their_start(machine):
    """An AP before its start-up message, after it, and after INIT is paused and resumed like any other."""
    starter = machine.vcpu(STARTER)
    waiting = machine.vm.create_vcpu(1)
    machine.memory.write(0x2000, bytes.fromhex(STARTED))
    for vcpu in (starter, waiting):
        machine.use_local_apic(vcpu)
    manager = VcpuManager([starter, waiting], lambda _: RecordingOps(), lambda stop: pytest.fail(str(stop)))

    def count():
        return machine.memory.load(COUNTERS + 4, 4)

    def order(byte):
        machine.memory.write(0x5000, bytes([byte]))
        until(lambda: machine.memory.read(0x5000, 1) == b"\0", "vCPU 0 takes its order")

    def pauses():
        for _ in range(20):
            manager.pause(PATIENCE)
            before = count()
            assert waiting.fd.get_mp_state() in STATES
            assert count() == before
            manager.resume()

    manager.start()
    try:
        pauses()
        order(INIT)
        until(lambda: waiting.stats().waits, "EAGAIN is answered in C")
        for _ in range(3):
            pauses()
            seen = {count()}
            order(START)
            until(lambda seen=seen: count() not in seen, "vCPU 1 runs")
            pauses()
            order(INIT)
    finally:
        manager.stop()
        waiting.close()


@pytest.mark.kvm
def test_a_forked_child_is_told_and_the_parent_runs_on(machine):
    """There every call says ForkedError; here the guest counts, and pauses as before."""
    guests = Guests(machine, ["reads ports"])
    guests.manager.start()
    try:
        guests.wait_for_progress()
        pid = os.fork()
        if pid == 0:
            told = 0
            for call in (guests.manager.pause, guests.vcpus[0].kick, guests.vcpus[0].fd.get_regs):
                try:
                    call()
                except ForkedError:
                    told += 1
            os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        cycle(guests, 20)
    finally:
        guests.manager.stop()


PROCESS = """
import os, signal, sys, threading, time
from kvm_ioctls import Intr, Regs
from kvm_ioctls._ffi import lib
from kvm_ioctls.testing import TinyGuest

guest = TinyGuest(bytes.fromhex({code!r}))
{body}
"""
CODES = {"never exits": "66ff060040 ebf9", "exits always": "e470 ebfc"}
CTRL_C = """
def interrupt():
    while not lib.kvmx_vcpu_user(guest.vcpu._vcpu):
        pass
    while not done:  # one that comes in the instant before KVM_RUN waits for the next
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

done = []
sender = threading.Thread(target=interrupt)
sender.start()
try:
    while True:
        guest.vcpu.run()
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done.append(True)
sender.join()
guest.vcpu.kick()
while guest.vcpu.run() != Intr():
    pass
guest.vcpu.get_regs()
guest.close()
print("went on")
"""
LEFT_ALONE = """
def run():
    while True:
        guest.vcpu.run()

threading.Thread(target=run, daemon=True).start()
while not guest.vcpu.stats().exits and {exits}:
    time.sleep(0.001)
time.sleep(0.05)
print("went on")
"""


@pytest.mark.kvm
@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("body", [CTRL_C, LEFT_ALONE], ids=["Ctrl-C", "interpreter shutdown"])
def test_processes_end_as_they_should(kind, body):
    """Ctrl-C comes out of run, whose vCPU can be used again; a thread still inside holds up no exit."""
    text = body if body is CTRL_C else body.format(exits=kind == "exits always")
    script = PROCESS.format(code=CODES[kind], body=text)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
