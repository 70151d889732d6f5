"""P3: bytes through chains, a batch at a time: 4 KiB of each chain to or from one buffer."""

from typing import Final

import attrs
import p1_queue
from harness import Options, Row
from p1_queue import BEST, Work

_CHAINS: Final = (
    Work("P3", "chains of 2, 1 region, dirty bitmap, event index", {BEST: 0.8}, event_idx=True, bytes=4096),
    Work("P3", "chains of 8, 1 region, dirty bitmap", {BEST: 0.8}, descriptors=8, size=512, bytes=4096),
    Work("P3", "chains of 2, 8 regions, dirty bitmap", {BEST: 0.8}, regions=8, bytes=4096),
)
WORKS: Final = tuple(
    attrs.evolve(chains, what=f"pop, {way} 4 KiB, complete: 64 {chains.what}", way=way)
    for chains in _CHAINS
    for way in ("gather", "scatter")
)


def run(options: Options) -> list[Row]:
    """Measure both ways."""
    return p1_queue.run_works(options, WORKS)
