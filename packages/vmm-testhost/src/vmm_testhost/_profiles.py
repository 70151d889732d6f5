"""The three Hypothesis profiles, registered when Hypothesis itself is imported."""

import os
from typing import Final

EXAMPLES = {"dev": 100, "ci": 50, "long": 1000}
_VARIABLE = "VMM_HYPOTHESIS_PROFILE"

LONG: Final = os.environ.get(_VARIABLE) == "long"
"""Whether this run takes full counts of everything, as `make test-long` does."""


def register() -> None:
    """Register profiles dev, ci and long and load the one that VMM_HYPOTHESIS_PROFILE names (default dev).

    ``dev`` keeps Hypothesis' usual 100 examples, ``ci`` runs 50 that are the same on every run, ``long``
    runs 1000. None has a deadline: inside the emulated host code is 10-16 times slower. Called by
    Hypothesis through its ``hypothesis`` entry point, so it wins over a profile loaded by an environment
    default and loses to ``--hypothesis-profile``.

    Raises:
        ValueError: The variable names a profile that does not exist.
    """
    from hypothesis import HealthCheck, settings  # noqa: PLC0415 - only present when Hypothesis calls us

    wanted = os.environ.get(_VARIABLE) or "dev"
    if wanted not in EXAMPLES:
        raise ValueError(f"{_VARIABLE}={wanted!r}: not one of {', '.join(EXAMPLES)}")
    # A checkout of somebody else's cannot take a database: asking for one there is a warning.
    database = {} if os.access(".", os.W_OK) else {"database": None}
    for name, count in EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=count,
            deadline=None,
            derandomize=name == "ci",
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
            **({"database": None} if name == "ci" else database),
        )
    settings.load_profile(wanted)
