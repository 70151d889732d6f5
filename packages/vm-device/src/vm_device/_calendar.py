"""Seconds since 1970 UTC from and to dates of the years 1 to 9999; loaded when a guest asks for one."""

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ("date_of", "seconds_of")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def date_of(seconds: int) -> datetime:
    """Return the date and time; what lies beyond the years becomes their first or last second."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return _LAST if seconds > 0 else _FIRST


def seconds_of(date: tuple[int, int, int], clock: tuple[int, int, int]) -> int:
    """Return the seconds; ValueError for a date (year, month, day) or clock (h, m, s) that does not exist."""
    (year, month, day), (hour, minute, second) = date, clock
    return (datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
