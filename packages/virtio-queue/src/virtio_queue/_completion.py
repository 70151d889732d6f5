"""Why chains cannot be completed, in words."""

from collections.abc import Callable, Sequence


def refusal(
    heads: Sequence[int],
    size: int,
    in_flight: int,
    held: Callable[[int], bool] | None = None,
    oldest: Sequence[int] | None = None,
) -> str | None:
    """Which rule a completion of `heads` breaks.

    Args:
        heads: The chains to be completed together.
        size: Entries of the queue.
        in_flight: Chains that may be completed.
        held: For a packed ring, whether a buffer id is in flight.
        oldest: With VIRTIO_F_IN_ORDER, the heads in flight in the order of their pops.
    """
    for index, head in enumerate(heads):
        if held is None and head >= size:
            return f"chain {head} is no index of a queue of {size}"
        if held is not None and (head in heads[:index] or not held(head)):
            return f"chain {head} is not in flight"
    if len(heads) > in_flight:
        return f"{len(heads)} chains to complete, {in_flight} are in flight"
    for head, expected in zip(heads, heads if oldest is None else oldest, strict=False):
        if head != expected:
            return f"chain {head} is not the next to complete in order, chain {expected} is"
    return None
