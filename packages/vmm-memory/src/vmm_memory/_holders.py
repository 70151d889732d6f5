"""Who keeps memory in use, so that an unmap can wait for them, or name them."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ("Holders", "caller")

_PACKAGE: Final = __name__.partition(".")[0]
_POLL_SECONDS: Final = 0.001
_User: TypeAlias = tuple[weakref.ref[object], Callable[[], str] | None, tuple[int, int] | None]


class Holders:
    """Weak references to users, each with the text that names it; any thread may add, ask and wait."""

    __slots__ = ("_users",)

    def __init__(self) -> None:
        # By identity: a cffi buffer has no hash. Each operation on the dict is one under the GIL.
        self._users: Final[dict[int, _User]] = {}

    def add(
        self, user: object, name: Callable[[], str] | None = None, span: tuple[int, int] | None = None
    ) -> None:
        """Count this object until it is gone, or until its attribute `closed`, if it has one, is true.

        Args:
            user: Anything that can be weakly referenced.
            name: What names it; its repr does by default. Must not refer to the user.
            span: (first, end) of the addresses it uses; any by default.
        """
        key, users = id(user), self._users

        def forget(reference: weakref.ref[object]) -> None:
            # Another object may have the id by now.
            if key in users and users[key][0] is reference:
                del users[key]

        users[key] = (weakref.ref(user, forget), name, span)

    def names(self, span: tuple[int, int] | None = None) -> tuple[str, ...]:
        """The users of this moment, sorted; of addresses in [first, end) alone, if they are given."""
        found = []
        for reference, name, uses in list(self._users.values()):
            user = reference()
            if user is None or getattr(user, "closed", False):
                continue
            if uses is None or span is None or (uses[0] < span[1] and span[0] < uses[1]):
                found.append(repr(user) if name is None else name())
        return tuple(sorted(found))

    def wait(self, timeout: float, span: tuple[int, int] | None = None) -> tuple[str, ...]:
        """Wait until nobody is left, at most so many seconds; who is left then. `span` as in `names`."""
        end = time.monotonic() + timeout
        # Polled: a weak reference's callback may run anywhere, and must not take a lock to wake somebody.
        while (left := self.names(span)) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return left


def caller() -> str:
    """FILE:LINE of the innermost call from outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
