"""What hostile drivers put into memory: chains that break rules, words that change while they are read."""

import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import attrs
from vmm_memory import GuestMemory

from virtio_queue._layout import DESCRIPTOR, PACKED_DESCRIPTOR
from virtio_queue.testing._driver import Driver

RawDescriptor = tuple[int, int, int, int]


@attrs.frozen
class HostileChain:
    """Descriptors as raw words, right or wrong, and the head that is announced.

    Attributes:
        rows: (address, length, flags, next) for the descriptor table from entry 0 on; in a packed ring the
            last is the buffer id. Those beyond the queue's size are left out.
        table: Further rows, where indirect tables are expected.
        head: For the available ring of a split queue, 0 to 65535.
    """

    rows: tuple[RawDescriptor, ...] = ()
    table: tuple[RawDescriptor, ...] = ()
    head: int = 0

    def offer(self, driver: Driver, table: int) -> None:
        """Have a driver make it available.

        Args:
            driver: Of either format.
            table: Guest address of the further rows.
        """
        if driver.layout.packed:
            raw = [
                PACKED_DESCRIPTOR.pack(addr, length, last, flags) for addr, length, flags, last in self.table
            ]
        else:
            raw = [DESCRIPTOR.pack(*row) for row in self.table]
        driver.memory.write(table, b"".join(raw))
        driver.offer(self.rows, self.head)


class RacingDriver:
    """A thread that keeps rewriting words of guest memory while a device reads them: torn updates.

    Use it as a context manager around device calls. Each store is atomic by itself; what a device reads
    of several words is any mixture of old and new.

    Args:
        memory: The guest's memory; its stores must be atomic (GuestMemoryMmap is).
        words: Guest addresses of 16-bit words, each a multiple of 2.
        values: What is written, in random order; 0 to 65535 each.
        seed: Of the order.

    Attributes:
        stores: How many stores were made so far.

    Raises:
        ValueError: No words or no values.
        Exception: What a store raised, when the block ends.
    """

    def __init__(
        self, memory: GuestMemory, words: Sequence[int], values: Sequence[int], *, seed: int = 0
    ) -> None:
        if not words or not values:
            raise ValueError(f"{len(words)} words and {len(values)} values: a race needs one of each")
        self.stores = 0
        self._memory = memory
        self._words = tuple(words)
        self._values = tuple(values)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="racing-driver")

    def _run(self) -> None:
        pick = self._random.choice
        try:
            while not self._stop.is_set():
                for _ in range(64):
                    self._memory.store(pick(self._words), 2, pick(self._values))
                self.stores += 64
                self._started.set()
        except Exception as error:  # noqa: BLE001 - raised again where the race ends
            self._error = error
        finally:
            self._started.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error
