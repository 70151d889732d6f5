"""A first-fit allocator for a driver's buffers."""

from collections.abc import Sequence

_GRAIN = 16


class Arena:
    """Hands out blocks of guest memory, aligned to 16 bytes; knows addresses only.

    Args:
        base: First guest address.
        size: Bytes.
    """

    def __init__(self, base: int, size: int) -> None:
        self._end = base + size
        self._base = -(-base // _GRAIN) * _GRAIN
        self._blocks: dict[int, int] = {}  # address -> bytes, in order of address

    def _take(self, size: int) -> int:
        size = max(-(-size // _GRAIN), 1) * _GRAIN
        start = self._base
        for addr, length in self._blocks.items():
            if addr - start >= size:
                break
            start = addr + length
        if start + size > self._end:
            raise MemoryError(f"arena of {self._end - self._base} bytes has no room for {size}")
        self._blocks[start] = size
        self._blocks = dict(sorted(self._blocks.items()))
        return start

    def take_all(self, sizes: Sequence[int]) -> list[int]:
        """One block per size.

        Raises:
            MemoryError: They do not all fit; none is taken.
        """
        taken: list[int] = []
        try:
            for size in sizes:
                taken.append(self._take(size))
        except MemoryError:
            self.free(*taken)
            raise
        return taken

    def free(self, *addresses: int) -> None:
        """Take blocks back."""
        for addr in addresses:
            del self._blocks[addr]
