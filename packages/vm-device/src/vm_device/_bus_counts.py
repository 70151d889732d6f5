"""What a bus counts; loaded when somebody asks."""

import attrs

__all__ = ("AccessCounts", "UnclaimedCounts")


@attrs.frozen
class UnclaimedCounts:
    """`reads` and `writes` nobody answered since the bus was made; `last_address` is -1 before the first."""

    reads: int
    writes: int
    last_address: int


@attrs.frozen
class AccessCounts:
    """Accesses that one registration answered, `reads` and `writes`, from its first on."""

    reads: int = 0
    writes: int = 0
