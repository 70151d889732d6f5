"""What a vCPU's runs came to."""

from collections.abc import Mapping

import attrs

__all__ = ("RunStats",)


@attrs.frozen
class RunStats:
    """What ``run`` has seen since the vCPU was made.

    Attributes:
        exits: Exits by KVM_EXIT_* number, those answered in C included; 47 collects all above.
        native: Exits that the native table answered.
        kicks: Runs that a kick ended.
        interrupted: KVM_RUN interrupted by some other signal and resumed.
        waits: KVM_RUN answered EAGAIN: an application processor that waits for its start-up message.
    """

    exits: Mapping[int, int]
    native: int
    kicks: int
    interrupted: int
    waits: int
