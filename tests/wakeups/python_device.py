"""A device in Python on `virtio_queue.Queue`, and the driver of csrc/driver.c in a thread beside it.

Usage: python python_device.py LIBRARY split|packed flags|event SIZE SLEEPS SEED PATIENCE_MS

Runs until both have slept SLEEPS times; one line of JSON, as csrc/stress.c prints it.
"""

import json
import os
import random
import sys
import threading

import cffi
from virtio_queue import ChainBatch, Queue
from virtio_queue.testing import RingLayout
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

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


class Device:
    """Answers requests until it is told to stop; every sequence number must follow the one before."""

    def __init__(self, memory, queue, sleep, interrupt, seed):
        self.memory, self.queue = memory, queue
        self._sleep, self._interrupt = sleep, interrupt
        self.slept = ffi.new("uint64_t *")
        self.answered = 0
        self.stop = False
        self.wrong = ""
        self._batch = ChainBatch(16, max(queue.size, 32))
        self._random = random.Random(seed)

    def run(self):
        """The loop of the package's README."""
        while not self.stop and not self.wrong:
            self.queue.disable_notification(self.memory)
            while self._drain() and not self.wrong:
                pass
            if not self.wrong and not self.queue.enable_notification(self.memory) and self._sleep(self.slept):
                self.wrong = f"device: no kick, {self.answered} answered"

    def _drain(self):
        for _ in range(self._random.choice((1, 1, 1, 20))):  # awake for a while, now and then
            if self.queue.pop_batch(self.memory, self._batch):
                break
        else:
            return False
        for index in range(len(self._batch)):
            chain = self._batch.chain(index, self.memory)
            source, target = (segment.addr for segment in chain.segments)
            number = self.memory.load(source, 8)
            self.answered += 1
            if number != self.answered:
                self.wrong = f"device: sequence number {number}, not {self.answered}"
            self.memory.store(target, 8, number ^ 0xFFFF_FFFF_FFFF_FFFF)
            self._batch.set_written(index, 8)
        if self.queue.complete_batch(self.memory, self._batch):
            os.eventfd_write(self._interrupt, 1)
        return True


def main():
    """Run both; the status of csrc/stress.c."""
    library, ring, mode, *numbers = sys.argv[1:]
    size, sleeps, seed, patience = map(int, numbers)
    driver = ffi.dlopen(library)
    # As in stress.c no dirty bitmap: marking would do the work of a missing fence.
    region = GuestRegionMmap.anonymous(0, 0x40000)
    memory = GuestMemoryMmap([region])
    queue = Queue(1024)
    layout = RingLayout.at(RING, size, packed=ring == "packed")
    kick, interrupt = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
    device = Device(memory, queue, lambda slept: driver.run_sleep(kick, patience, slept), interrupt, seed)
    # SAFETY: the region outlives the driver, which is destroyed below, and holds ring and buffers.
    host = ffi.cast("uint8_t *", region.host_address)
    options = (layout.packed, mode == "event", kick, interrupt, sleeps, device.slept, 2 * seed + 1, patience)
    peer = driver.driver_create(host, RING, size, *options)
    layout.configure(queue, event_idx=mode == "event")
    thread = threading.Thread(target=device.run)
    thread.start()
    status = driver.driver_run(peer)
    device.stop = True
    os.eventfd_write(kick, 1)
    thread.join()
    results, text = ffi.new("uint64_t[4]"), ffi.new("const char **")
    driver.driver_results(peer, results, text)
    wrong = "; ".join(filter(None, (ffi.string(text[0]).decode(), device.wrong)))
    driver.driver_destroy(peer)
    report = {"driver_slept": results[0], "device_slept": device.slept[0], "sent": results[2], "wrong": wrong}
    print(json.dumps(report), flush=True)
    return status or (WRONG if device.wrong else 0)


if __name__ == "__main__":
    sys.exit(main())
