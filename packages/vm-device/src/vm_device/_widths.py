"""A device behind a bus that splits: it sees only accesses as wide as its registers."""

from typing import Final

from vm_device._bus import BusDevice
from vm_device._errors import PlatformError

_WIDTHS: Final = (1, 2, 4, 8)


class AccessWidths:
    """Stands before a device on the bus, and lets through only widths that it knows.

    A wider access becomes several of the largest width, at ascending offsets. A narrower one, and one whose
    offset is no multiple of its own width (of the largest, if it is wider), is refused: a read gives
    all-ones, a write is dropped. Adds one call to an access; devices that take every width need none of it.

    Args:
        device: what answers.
        smallest: narrowest access that it gets, in bytes: 1, 2, 4 or 8.
        largest: widest, not less than `smallest`.

    Attributes:
        refused: accesses refused so far; a lower bound while several threads access.

    Raises:
        PlatformError: an impossible width, or largest below smallest.
    """

    def __init__(self, device: BusDevice, *, smallest: int = 1, largest: int = 8) -> None:
        for field, value in (("smallest", smallest), ("largest", largest)):
            if value not in _WIDTHS:
                raise PlatformError(field, value, "must be 1, 2, 4 or 8 bytes")
        if largest < smallest:
            raise PlatformError("largest", largest, f"must be at least smallest={smallest}")
        self._device = device
        self._smallest, self._largest = smallest, largest
        self.refused = 0

    def _refuses(self, offset: int, size: int) -> bool:
        if size >= self._smallest and offset % min(size, self._largest) == 0:
            return False
        self.refused += 1
        return True

    def read(self, offset: int, size: int) -> int:
        """Read in accesses of the device's widths."""
        if self._refuses(offset, size):
            return (1 << 8 * size) - 1
        width = min(size, self._largest)
        mask = (1 << 8 * width) - 1
        pieces = range(0, size, width)
        return sum((self._device.read(offset + piece, width) & mask) << 8 * piece for piece in pieces)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write in accesses of the device's widths."""
        if self._refuses(offset, size):
            return
        width = min(size, self._largest)
        mask = (1 << 8 * width) - 1
        for piece in range(0, size, width):
            self._device.write(offset + piece, width, value >> 8 * piece & mask)
