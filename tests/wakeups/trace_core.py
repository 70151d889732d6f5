"""Print which words of a ring the C core loads and stores, in what order, as JSON.

Usage: python trace_core.py split|packed flags|event SIZE BURST...

The extension must have been built with csrc/trace.h. A device looks at its empty ring and goes to sleep; then
for each BURST the driver sends so many requests of one descriptor, and the device wakes, answers them and
sleeps again.
"""

import json
import sys

import cffi
from virtio_queue import ChainBatch, Queue, _core
from virtio_queue.testing import Driver, RingLayout
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

RING, ARENA = 0x1000, 0x8000
ORDERS = {0: "relaxed", 2: "acquire", 3: "release", 5: "seq_cst"}

ffi = cffi.FFI()
ffi.cdef("""
struct trace_access { uint64_t address; uint32_t kind, bytes; int32_t order, unused; };
struct trace_log { uint64_t count; struct trace_access accesses[4096]; };
extern struct trace_log trace_log;
""")


def split_words(layout):
    """(first address, bytes, name) of each word of a split ring; slots of arrays are `{}`."""
    size, avail, used = layout.size, layout.avail_ring, layout.used_ring
    return [
        *((avail + at, 2, name) for at, name in ((0, "avail.flags"), (2, "avail.idx"))),
        *((avail + 4 + 2 * slot, 2, f"avail.ring[{slot}]") for slot in range(size)),
        (avail + 4 + 2 * size, 2, "used_event"),
        *((used + at, 2, name) for at, name in ((0, "used.flags"), (2, "used.idx"))),
        *((used + 4 + 8 * slot, 8, f"used.ring[{slot}]") for slot in range(size)),
        (used + 4 + 8 * size, 2, "avail_event"),
    ]


def packed_words(layout):
    """The same of a packed ring; a descriptor goes by its flags, which are in one word with length and id."""
    slots = range(layout.size)
    return [
        *((layout.desc_table + 16 * slot, 8, f"address[{slot}]") for slot in slots),
        *((layout.desc_table + 16 * slot + 8, 8, f"flags[{slot}]") for slot in slots),
        (layout.avail_ring, 4, "driver_event"),
        (layout.used_ring, 4, "device_event"),
    ]


def main():
    """Run the script and print the trace."""
    ring, mode, *numbers = sys.argv[1:]
    size, *bursts = map(int, numbers)
    event_idx = mode == "event"
    region = GuestRegionMmap.anonymous(0, 0x10000)
    memory = GuestMemoryMmap([region])
    layout = RingLayout.at(RING, size, packed=ring == "packed")
    words = (packed_words if layout.packed else split_words)(layout)
    driver = Driver(memory, layout, event_idx=event_idx, arena=(ARENA, 0x4000))
    queue = Queue(size)
    layout.configure(queue, event_idx=event_idx)
    batch = ChainBatch(size + 1, size)  # not full with a whole ring: it looks once more
    log = ffi.dlopen(_core.__file__).trace_log

    def device():
        """Wake, answer, sleep."""
        while queue.pop_batch(memory, batch):
            queue.complete_batch(memory, batch)
        if queue.enable_notification(memory):
            raise RuntimeError("the device found requests that were answered")

    def name(access):
        address = access.address - region.host_address
        found = [word for start, length, word in words if start <= address < start + length]
        return found[0] if found else hex(address)

    log.count = 0
    device()
    for burst in bursts:
        queue.disable_notification(memory)
        for _ in range(burst):
            driver.request([b"request"])
        device()
        for _ in driver.completed():
            pass
    accesses = [log.accesses[index] for index in range(log.count)]
    trace = [
        [chr(access.kind), "" if chr(access.kind) == "F" else name(access), ORDERS[access.order]]
        for access in accesses
    ]
    print(json.dumps(trace))


if __name__ == "__main__":
    main()
