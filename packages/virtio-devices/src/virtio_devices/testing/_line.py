"""An interrupt line that a test can wait on."""

import threading
from collections.abc import Callable
from typing import final


@final
class LineProbe:
    """An interrupt line that a test can wait on; has the shape of `vm_device.Interrupt`.

    Attributes:
        edges: how many edges came so far.
    """

    def __init__(self, on_trigger: Callable[[], None] | None = None) -> None:
        """`on_trigger` is called at each edge, on the device's thread."""
        self.edges = 0
        self._seen = 0
        self._arrived = threading.Condition()
        self._on_trigger = on_trigger

    def trigger(self) -> None:
        """Count an edge and wake the waiter."""
        if self._on_trigger is not None:
            self._on_trigger()
        with self._arrived:
            self.edges += 1
            self._arrived.notify_all()

    def set_level(self, level: bool) -> None:
        """A level line is seen as an edge at each rise."""
        if level:
            self.trigger()

    @property
    def eventfd(self) -> int | None:
        """None: edges are counted, not written anywhere."""
        return None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for an edge that no `wait` has returned for yet."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: self.edges > self._seen, timeout)
            self._seen = self.edges
            return arrived
