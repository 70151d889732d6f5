"""A device in Python on `virtio_queue.Queue`, and the driver of csrc/driver.c in a thread beside it.

Usage: python python_device.py KIND LIBRARY split|packed flags|event SIZE SLEEPS SEED PATIENCE_MS

KIND loop is that of virtio-queue's README; chains and batches are the server that every virtio device of ours
has. Runs until both have slept SLEEPS times; one line of JSON, as csrc/stress.c prints it.
"""

import functools
import json
import random
import sys
import threading

import cffi
from virtio_devices._server import BatchWork, ChainWork, QueueServer
from virtio_devices._tally import QueueTally
from virtio_queue import ChainBatch, Queue
from virtio_queue.testing import RingLayout
from vm_device import EventFd, EventManager
from vmm_memory import GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap

RING = 0x1000
WRONG = 2

ffi = cffi.FFI()
ffi.cdef("""
struct driver *driver_create(uint8_t *memory, uint64_t ring, uint32_t size, uint32_t packed,
                             uint32_t event_idx, int kick, int interrupt, uint64_t goal,
                             uint64_t *peer_slept, uint64_t seed, int patience);
int run_sleep(int fd, int patience, uint64_t *slept);
int driver_run(struct driver *d);
void driver_results(const struct driver *d, uint64_t results[4], const char **wrong);
void driver_destroy(struct driver *d);
""")


class Sequence:
    """Answers requests; every number must follow the one before."""

    def __init__(self):
        self.answered = 0
        self.wrong = ""

    def answer(self, memory, chain):
        """The device's work: bytes written."""
        source, target = (segment.addr for segment in chain.segments)
        number = memory.load(source, 8)
        self.answered += 1
        if number != self.answered:
            self.wrong = f"device: sequence number {number}, not {self.answered}"
        memory.store(target, 8, number ^ 0xFFFF_FFFF_FFFF_FFFF)
        return 8

    def answer_batch(self, memory, batch):
        """The same for a batch: whether all its chains were sound."""
        for index in range(len(batch)):
            batch.set_written(index, self.answer(memory, batch.chain(index, memory)))
        return True


class Loop(threading.Thread):
    """The loop of the package's README."""

    def __init__(self, memory, queue, sequence, sleep, interrupt, seed):
        super().__init__()
        self._memory, self._queue, self._sequence = memory, queue, sequence
        self._sleep, self._interrupt = sleep, interrupt
        self._batch = ChainBatch(16, max(queue.size, 32))
        self._random = random.Random(seed)
        self._over = False

    def run(self):
        """Until told to stop, or something is wrong."""
        while not self._over and not self._sequence.wrong:
            self._queue.disable_notification(self._memory)
            while self._drain() and not self._sequence.wrong:
                pass
            if not self._queue.enable_notification(self._memory) and self._sleep():
                self._sequence.wrong = f"device: no kick, {self._sequence.answered} answered"

    def _drain(self):
        for _ in range(self._random.choice((1, 1, 1, 20))):  # awake for a while, now and then
            if self._queue.pop_batch(self._memory, self._batch):
                break
        else:
            return False
        self._sequence.answer_batch(self._memory, self._batch)
        if self._queue.complete_batch(self._memory, self._batch):
            self._interrupt()
        return True

    def finish(self, kick):
        """Stop."""
        self._over = True
        kick.write()
        self.join()


class CountedKick(EventFd):
    """A kick whose every reading that follows a sleep of the event loop is counted."""

    slept = None

    def read(self):
        """Read it."""
        self.slept[0] += 1
        return super().read()


class Served:
    """The QueueServer of virtio-devices on an event loop of its own."""

    def __init__(self, memory, queue, sequence, kick, interrupt, *, batches):
        if batches:
            work = BatchWork(sequence.answer_batch, ChainBatch(16, 1024), None)
        else:
            work = ChainWork(sequence.answer, None)
        self._loop = EventManager()
        self._server = QueueServer(
            0,
            queue,
            kick,
            GuestMemoryAtomic(memory),
            work,
            tally=QueueTally(),
            interrupt=lambda _index: interrupt(),
            fail=functools.partial(setattr, sequence, "wrong"),
        )

    def start(self):
        """Start it."""
        self._loop.start()
        self._server.start(self._loop)

    def finish(self, _kick):
        """Stop it."""
        self._server.stop()
        self._loop.close()


def main():
    """Run both; the status of csrc/stress.c."""
    kind, library, ring, mode, *numbers = sys.argv[1:]
    size, sleeps, seed, patience = map(int, numbers)
    driver = ffi.dlopen(library)
    # As in stress.c no dirty bitmap: marking would do the work of a missing fence.
    region = GuestRegionMmap.anonymous(0, 0x40000)
    memory = GuestMemoryMmap([region])
    queue, sequence = Queue(1024), Sequence()
    layout = RingLayout.at(RING, size, packed=ring == "packed")
    kick, interrupt = CountedKick(), EventFd()
    slept = kick.slept = ffi.new("uint64_t *")
    if kind == "loop":
        sleep = functools.partial(driver.run_sleep, kick.fd, patience, slept)
        device = Loop(memory, queue, sequence, sleep, interrupt.write, seed)
    else:
        device = Served(memory, queue, sequence, kick, interrupt.write, batches=kind == "batches")
    # SAFETY: the region outlives the driver, which is destroyed below, and holds ring and buffers.
    host = ffi.cast("uint8_t *", region.host_address)
    options = (layout.packed, mode == "event", kick.fd, interrupt.fd, sleeps, slept, 2 * seed + 1, patience)
    peer = driver.driver_create(host, RING, size, *options)
    layout.configure(queue, event_idx=mode == "event")
    device.start()
    status = driver.driver_run(peer)
    device.finish(kick)
    results, text = ffi.new("uint64_t[4]"), ffi.new("const char **")
    driver.driver_results(peer, results, text)
    wrong = "; ".join(filter(None, (ffi.string(text[0]).decode(), sequence.wrong)))
    driver.driver_destroy(peer)
    report = {"driver_slept": results[0], "device_slept": slept[0], "sent": results[2], "wrong": wrong}
    print(json.dumps(report), flush=True)
    return status or (WRONG if sequence.wrong else 0)


if __name__ == "__main__":
    sys.exit(main())
