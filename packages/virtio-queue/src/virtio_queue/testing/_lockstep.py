"""Runs two implementations of a queue side by side and insists that they agree."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._errors import DriverError
from virtio_queue._protocol import VirtQueue

_T = TypeVar("_T")
Outcome = tuple[object, ...]


class Lockstep:
    """Two queues, each on its own memory of equal content; every call goes to both and must end alike.

    Args:
        queues: The implementation under test and its oracle.
        memories: One for each, mapped alike and with the same content.
        watched: (address, bytes) ranges that must stay equal.
    """

    def __init__(
        self,
        queues: tuple[VirtQueue, VirtQueue],
        memories: tuple[GuestMemory, GuestMemory],
        watched: Sequence[tuple[int, int]],
    ) -> None:
        self.queues = queues
        self.memories = memories
        self.watched = tuple(watched)

    def call(self, operation: Callable[[VirtQueue, GuestMemory], _T]) -> _T | DriverError | ValueError:
        """Do one operation on both sides.

        Args:
            operation: Gets a queue and its memory.

        Returns:
            What it returned on the first side, or the exception it raised there.

        Raises:
            AssertionError: The two sides differ in result, error, state, or memory.
        """
        results = [_attempt(operation, *side) for side in zip(self.queues, self.memories, strict=True)]
        left, right = (_comparable(result) for result in results)
        assert left == right, _difference(left, right)
        self.compare()
        return results[0]

    def pop_batch(self, max_chains: int, max_segments: int) -> ChainBatch | DriverError | ValueError:
        """Pop a batch on both sides and compare the chains; returns that of the first side."""
        batches = [ChainBatch(max_chains, max_segments) for _ in self.queues]
        sides = iter(batches)
        result = self.call(lambda queue, memory: queue.pop_batch(memory, next(sides)))
        left, right = [(batch.records(), _all_segments(batch)) for batch in batches]
        assert left == right, _difference(left, right)
        return result if isinstance(result, Exception) else batches[0]

    def compare(self) -> None:
        """Compare states, counters, watched memory, and the pages that became dirty where that is tracked.

        Raises:
            AssertionError: They differ.
        """
        left, right = (queue.state() for queue in self.queues)
        assert left == right, _difference(left, right)
        counted, expected = (queue.counters for queue in self.queues)
        assert counted == expected, _difference(counted, expected)
        for addr, size in self.watched:
            first, second = (memory.read(addr, size) for memory in self.memories)
            if first != second:
                offset = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
                raise AssertionError(
                    f"memory at {addr + offset:#x}: queue {first[offset]:#x}, twin {second[offset]:#x}"
                )
        dirty: list[object] = [getattr(memory, "take_dirty", tuple)() for memory in self.memories]
        assert dirty[0] == dirty[1], "dirty pages" + _difference(*dirty)


def _difference(left: object, right: object) -> str:
    return f"\nqueue: {left}\ntwin:  {right}"


def _attempt(
    operation: Callable[[VirtQueue, GuestMemory], _T], queue: VirtQueue, memory: GuestMemory
) -> _T | DriverError | ValueError:
    try:
        return operation(queue, memory)
    except (DriverError, ValueError) as error:
        return error


def _comparable(result: object) -> Outcome:
    if isinstance(result, DriverError):
        error = result
        return (error.reason, error.head, error.position, error.value, error.limit, str(error))
    if isinstance(result, ValueError):
        return ("ValueError", str(result))
    if isinstance(result, DescriptorChain):
        return (result.head, result.segments)
    return ("returned", result)


def _all_segments(batch: ChainBatch) -> list[object]:
    return [batch.segments(index) for index in range(len(batch))]
