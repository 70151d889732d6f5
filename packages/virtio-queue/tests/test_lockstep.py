"""The comparison finds what differs."""

import pytest
from virtio_queue import DriverError
from virtio_queue.testing import Lockstep, RingLayout, TwinQueue
from vmm_memory.testing import ByteArrayMemory


class Forgetful(TwinQueue):
    """A queue that never asks for interrupts."""

    def needs_notification(self, mem):
        """Always False."""
        super().needs_notification(mem)
        return False


class Scribbler(TwinQueue):
    """A queue that writes where it must not."""

    def disable_notification(self, mem):
        """Also writes one byte behind the rings."""
        super().disable_notification(mem)
        mem.write(0x1800, b"!")


def _pair(cls):
    layout = RingLayout.at(0x1000, 4)
    queues, memories = (cls(4), TwinQueue(4)), tuple(ByteArrayMemory([(0x1000, 0x1000)]) for _ in range(2))
    for queue, mem in zip(queues, memories, strict=True):
        layout.configure(queue)
        mem.write(0x1000, (0x1900).to_bytes(8, "little") + (4).to_bytes(4, "little"))
        mem.store(layout.avail_ring + 2, 2, 1)
    return Lockstep(queues, memories, [(0x1000, 0x1000)])


def test_agreement_passes_results_on():
    """Equal results and equal errors are returned."""
    pair = _pair(TwinQueue)
    assert pair.call(lambda queue, mem: queue.pop(mem)).head == 0
    assert isinstance(pair.call(lambda queue, mem: queue.undo_pop(9)), ValueError)
    for queue in pair.queues:
        queue.ready = False
    assert isinstance(pair.pop_batch(1, 4), DriverError)


def test_different_results_are_found():
    """A wrong decision is an assertion with both sides."""
    pair = _pair(Forgetful)
    pair.call(lambda queue, mem: queue.add_used(mem, queue.pop(mem).head, 0))
    with pytest.raises(AssertionError, match=r"(?s)queue: .*False.*twin: .*True"):
        pair.call(lambda queue, mem: queue.needs_notification(mem))


def test_different_memory_is_found():
    """A stray write is an assertion with its address."""
    with pytest.raises(AssertionError, match="memory at 0x1800: queue 0x21, twin 0x0"):
        _pair(Scribbler).call(lambda queue, mem: queue.disable_notification(mem))


def test_different_state_is_found():
    """A state that drifted is an assertion even when the results agree."""
    pair = _pair(TwinQueue)
    pair.queues[0].event_idx = True
    with pytest.raises(AssertionError, match="event_idx=True"):
        pair.compare()
