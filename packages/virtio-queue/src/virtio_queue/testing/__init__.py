"""The other side of a virtqueue: drivers, honest and hostile, a readable twin of the queue, and trials.

A trial puts a queue or a device to the test, step by step, and tells what it did as a program. The parts
that need Hypothesis, which looks for the steps, are apart: `virtio_queue.testing.strategies` and
`virtio_queue.testing.stateful`, which want the extra `testing` of this package.
"""

from virtio_queue.testing._arena import Arena
from virtio_queue.testing._device_trial import Answer, Device, DeviceTrial
from virtio_queue.testing._driver import Completion, DeviceFaultError, Driver
from virtio_queue.testing._hostile import HostileChain, RacingDriver
from virtio_queue.testing._implementation import MovableRing, QueueClass, ResettableRing
from virtio_queue.testing._lockstep import Lockstep
from virtio_queue.testing._queue_trial import QueueTrial
from virtio_queue.testing._record import Step
from virtio_queue.testing._rings import PackedRings, RawRings, RingLayout
from virtio_queue.testing._trial_memory import trial_memory
from virtio_queue.testing._twin import TwinQueue
from virtio_queue.testing._workload import BatchWorkload

__all__ = (
    "Answer",
    "Arena",
    "BatchWorkload",
    "Completion",
    "Device",
    "DeviceFaultError",
    "DeviceTrial",
    "Driver",
    "HostileChain",
    "Lockstep",
    "MovableRing",
    "PackedRings",
    "QueueClass",
    "QueueTrial",
    "RacingDriver",
    "RawRings",
    "ResettableRing",
    "RingLayout",
    "Step",
    "TwinQueue",
    "trial_memory",
)
