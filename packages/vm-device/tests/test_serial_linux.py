"""The UART under Linux's 8250 driver on two CPUs, its edges late, merged, and lost while the pin is masked.

The guest follows kernel/irq/chip.c (handle_edge_irq) and drivers/tty/serial/8250: one step is one register
access, and hypothesis chooses who takes the next one. The line is an irqfd before an in-kernel I/O APIC:
writes to the eventfd merge into one work item, which runs at any later time and finds the pin masked or not.
"""

from hypothesis import given
from hypothesis import strategies as st
from vm_device import Serial16550
from vm_device.testing import FakeInterrupt

THR, IER, IIR, LSR, MSR = 0, 1, 2, 5, 6
THRI = 2


class Guest:
    """Two CPUs, one port: each CPU has a task, and an interrupt handler that goes first."""

    def __init__(self, tasks, *, deaf=False):
        self.out, self.received, self.accepted = bytearray(), bytearray(), bytearray()
        self.work = self.masked = self.pending = self.in_progress = self.locked = False
        self.deaf = deaf
        self.irr, self.irqs_off, self.handlers = [False] * 2, [False] * 2, [None] * 2
        self.xmit, self.ier = bytearray(), 0x05
        self.uart = Serial16550(self.out.extend, FakeInterrupt(self.signal))
        for register, value in ((2, 0x87), (4, 0x0B), (IER, self.ier)):
            self.put(register, value)
        self.tasks = [self.task(cpu, script) for cpu, script in enumerate(tasks)]

    def get(self, register):
        return self.uart.read(register, 1)

    def put(self, register, value):
        self.uart.write(register, 1, value)

    def signal(self):
        self.work = not self.deaf

    def inject(self, cpu):
        """The work item of the irqfd; an edge into a masked pin is gone."""
        if self.work and not self.masked:
            self.irr[cpu] = True
        self.work = False

    def step(self, cpu):
        """One step of what this CPU has to do; False when there is nothing."""
        if self.handlers[cpu] is None and self.irr[cpu] and not self.irqs_off[cpu]:
            self.irr[cpu] = False
            self.handlers[cpu] = self.handle_edge_irq()
        current = self.handlers if self.handlers[cpu] is not None else self.tasks
        if current[cpu] is None:
            return False
        if next(current[cpu], "end") == "end":
            current[cpu] = None
        return True

    def settle(self):
        """Run everything to its end."""
        while self.step(0) | self.step(1) | self.work:
            self.inject(0)

    # -- the kernel

    def handle_edge_irq(self):
        if self.in_progress:
            self.pending = self.masked = True
            return
        yield
        while True:
            if self.pending:
                self.masked = False
                yield
            self.pending, self.in_progress = False, True
            yield from self.serial8250_interrupt()
            self.in_progress = False
            if not self.pending:
                return

    def serial8250_interrupt(self):
        while True:
            iir = self.get(IIR)
            yield
            if iir & 1:
                return
            yield from self.lock()
            status = self.get(LSR)
            yield
            while status & 1:
                self.received.append(self.get(0))
                yield
                status = self.get(LSR)
                yield
            self.get(MSR)
            yield
            if status & 0x20 and self.ier & THRI:
                yield from self.tx_chars()
            self.locked = False

    def tx_chars(self):
        for _ in range(16):
            if not self.xmit:
                break
            self.put(THR, self.xmit.pop(0))
            yield
        if not self.xmit:
            self.ier &= ~THRI
            self.put(IER, self.ier)
            yield

    def lock(self):
        while self.locked:
            yield
        self.locked = True

    def task(self, cpu, script):
        for write, data in script:
            self.irqs_off[cpu] = True
            yield from self.lock()
            yield from (self.uart_write if write else self.console_write)(data)
            self.locked = self.irqs_off[cpu] = False
            yield

    def uart_write(self, data):
        self.xmit += data
        if not self.ier & THRI:
            self.ier |= THRI
            self.put(IER, self.ier)
            yield

    def console_write(self, data):
        saved = self.get(IER)
        yield
        self.put(IER, 0)
        yield
        for char in data:
            self.put(THR, char)
            yield
        self.put(IER, saved)
        yield


SCRIPTS = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=5)
CPU0, CPU1, TO_CPU0, TO_CPU1, RECEIVE = range(5)
SCHEDULES = st.lists(st.tuples(st.sampled_from(range(5)), st.integers(1, 24)), max_size=80)


@given(SCRIPTS, SCRIPTS, SCHEDULES)
def test_no_interleaving_stalls_the_transmitter(first, second, schedule):
    """Whatever the order of accesses, edges and masking, everything is sent and received in the end."""
    guest = Guest((first, second))
    for action, times in schedule:
        for _ in range(times):
            if action in (CPU0, CPU1):
                guest.step(action)
            elif action == RECEIVE:
                guest.accepted += b"r"[: guest.uart.enqueue(b"r")]
            else:
                guest.inject(action - TO_CPU0)
    guest.settle()
    assert not guest.xmit
    assert len(guest.out) == sum(len(data) for script in (first, second) for _, data in script)
    assert guest.received == guest.accepted


def test_the_guest_above_would_notice_a_lost_edge():
    """With a line that delivers nothing the same guest stalls: the test before can fail."""
    guest = Guest(([(True, bytes(24))], []), deaf=True)
    guest.settle()
    assert len(guest.xmit) == 24
