"""The tree of a machine's devices."""

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from vm_device._errors import DeviceTreeError

T = TypeVar("T")


class DeviceTree(Generic[T]):
    """Devices by id, each below a parent or at the top. Thread-safe.

    Iteration goes parents first, in order of insertion: the order to start in. Close in `reversed` order.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._devices: dict[str, T] = {}
        self._parents: dict[str, str | None] = {}

    def add(self, id: str, device: T, *, parent: str | None = None) -> None:  # noqa: A002 - ids are what it holds
        """Add a device under a new id.

        Raises:
            DeviceTreeError: the id is empty or taken, or the parent is unknown. Nothing changes.
        """
        with self._lock:
            if not id:
                raise DeviceTreeError(id, "must not be empty")
            if id in self._devices:
                raise DeviceTreeError(id, "is already in use; choose another id=")
            if parent is not None and parent not in self._devices:
                raise DeviceTreeError(id, f"its parent {parent!r} does not exist")
            self._devices[id] = device
            self._parents[id] = parent

    def remove(self, id: str) -> T:  # noqa: A002 - ids are what it holds
        """Take a device out and return it.

        Raises:
            DeviceTreeError: unknown id, or children are left. Nothing changes.
        """
        with self._lock:
            device = self.get(id)
            if children := self.children(id):
                raise DeviceTreeError(id, f"still has children {', '.join(children)}; remove those first")
            del self._devices[id], self._parents[id]
            return device

    def get(self, id: str) -> T:  # noqa: A002 - ids are what it holds
        """Return the device.

        Raises:
            DeviceTreeError: unknown id; the message lists the known ones.
        """
        with self._lock:
            if id not in self._devices:
                raise DeviceTreeError(id, f"unknown; known ids: {', '.join(self._devices) or 'none'}")
            return self._devices[id]

    def parent(self, id: str) -> str | None:  # noqa: A002 - ids are what it holds
        """Return the parent's id, or None at the top.

        Raises:
            DeviceTreeError: unknown id.
        """
        with self._lock:
            self.get(id)
            return self._parents[id]

    def children(self, id: str | None = None) -> tuple[str, ...]:  # noqa: A002 - ids are what it holds
        """Return the ids directly below `id`, or those at the top for None, in order of insertion."""
        with self._lock:
            return tuple(child for child, parent in self._parents.items() if parent == id)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._devices))

    def __reversed__(self) -> Iterator[str]:
        return reversed(tuple(self._devices))

    def __contains__(self, id: object) -> bool:  # noqa: A002 - ids are what it holds
        return id in self._devices

    def __len__(self) -> int:
        return len(self._devices)
