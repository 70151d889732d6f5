"""The state machine of `virtio_queue.testing.stateful` on both implementations, and on one that has less."""

import itertools

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from virtio_queue import Queue
from virtio_queue.testing import TwinQueue
from virtio_queue.testing.stateful import queue_machine


class SplitQueue(TwinQueue):
    """As the Rust crate's: neither packed nor in order, nor reset alone, nor moved."""

    packed = property(lambda _self: False, lambda _self, value: _refuse(value))
    in_order = property(lambda _self: False, lambda _self, value: _refuse(value))
    reset_ring = detach = attach = None


def _refuse(value):
    if value:
        raise NotImplementedError


TestQueue = queue_machine(Queue).TestCase
TestTwin = queue_machine(TwinQueue).TestCase
TestInOrder = queue_machine(Queue, in_order=True).TestCase
TestSplitQueue = queue_machine(SplitQueue, packed=False, in_order=False).TestCase


def test_abilities_are_drawn():
    """Rings of both formats, in order and not, are completed, reset, and moved."""
    seen = set()

    class Seen(Queue):
        pass

    def watched(name):
        def call(self, *args):
            result = getattr(Queue, name)(self, *args)
            seen.add((name, self.packed, self.in_order))
            return result

        return call

    names = ("add_used", "complete_batch", "reset_ring", "attach")
    for name in names:
        setattr(Seen, name, watched(name))
    quick = settings(
        max_examples=250, phases=[Phase.generate], deadline=None, database=None, derandomize=True
    )
    for in_order in (False, True):
        run_state_machine_as_test(queue_machine(Seen, in_order=in_order), settings=quick)
    assert seen == set(itertools.product(names, (False, True), (False, True)))
