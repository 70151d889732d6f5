"""What a queue counts."""

import attrs

__all__ = ("QueueCounters",)


@attrs.frozen
class QueueCounters:
    """What a queue did since it was made or reset; for statistics, and no part of its saved state.

    Attributes:
        chains: Completed chains.
        tables: Indirect tables walked; once more for a chain that was given back and taken again.
        wraps: Times that the used position passed the end of the ring.
        notified: Decisions to interrupt the driver.
        suppressed: Decisions not to, although chains had been completed since the last one.
    """

    chains: int = 0
    tables: int = 0
    wraps: int = 0
    notified: int = 0
    suppressed: int = 0

    def __add__(self, other: "QueueCounters") -> "QueueCounters":
        """The sum, for a device whose driver sets its queue up again and again."""
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        return QueueCounters(*(left + right for left, right in zip(mine, theirs, strict=True)))
