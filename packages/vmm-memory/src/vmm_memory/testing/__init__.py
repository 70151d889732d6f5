"""For tests of users of guest memory: a pure-Python twin, guarded regions; `strategies` (extra `testing`)."""

from ._guarded import guarded_region
from ._twin import ByteArrayMemory

__all__ = ("ByteArrayMemory", "guarded_region")
