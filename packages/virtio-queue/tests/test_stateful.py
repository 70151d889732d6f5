"""The state machine of `virtio_queue.testing.stateful` on both implementations."""

from virtio_queue import Queue
from virtio_queue.testing import TwinQueue
from virtio_queue.testing.stateful import queue_machine

TestQueue = queue_machine(Queue).TestCase
TestTwin = queue_machine(TwinQueue).TestCase
