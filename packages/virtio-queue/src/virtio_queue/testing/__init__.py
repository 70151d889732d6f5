"""The other side of a virtqueue: a driver, a pure-Python twin of the queue, and a workload for benchmarks.

The Hypothesis parts are apart, so that these work without it: `virtio_queue.testing.strategies` and
`virtio_queue.testing.stateful`.
"""

from virtio_queue.testing._arena import Arena
from virtio_queue.testing._driver import Completion, DeviceFaultError, Driver
from virtio_queue.testing._lockstep import Lockstep
from virtio_queue.testing._rings import RawRings, RingLayout
from virtio_queue.testing._twin import TwinQueue
from virtio_queue.testing._workload import BatchWorkload

__all__ = (
    "Arena",
    "BatchWorkload",
    "Completion",
    "DeviceFaultError",
    "Driver",
    "Lockstep",
    "RawRings",
    "RingLayout",
    "TwinQueue",
)
