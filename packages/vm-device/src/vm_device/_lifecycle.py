"""The one lifecycle every machine and device follows."""

import enum
import threading
from typing import Final

from vm_device._errors import LifecycleError


class LifecycleState(enum.Enum):
    """Where a machine or device stands."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINED = "drained"
    CLOSED = "closed"


# Rules: vCPUs run only in RUNNING. PAUSED: no vCPU runs, back ends may still complete. DRAINED: nothing is
# in flight, so state can be saved. CREATED goes to PAUSED when a saved machine is restored; DRAINED goes
# back to PAUSED when one that was saved lives on. RUNNING cannot close: threads must be stopped first.
# CLOSED is final.
_S = LifecycleState
_NEXT: Final = {
    _S.CREATED: frozenset({_S.RUNNING, _S.PAUSED, _S.CLOSED}),
    _S.RUNNING: frozenset({_S.PAUSED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.DRAINED, _S.CLOSED}),
    _S.DRAINED: frozenset({_S.PAUSED, _S.CLOSED}),
    _S.CLOSED: frozenset[LifecycleState](),
}


class Lifecycle:
    """Guard of one object's state: created → running ⇄ paused → drained → closed. Thread-safe.

    Args:
        name: what is guarded, for error messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._state = LifecycleState.CREATED
        self._changed = threading.Condition()

    @property
    def state(self) -> LifecycleState:
        """The present state."""
        return self._state

    def can(self, target: LifecycleState) -> bool:
        """Tell whether `to(target)` would be legal now."""
        return target in _NEXT[self._state]

    def to(self, target: LifecycleState) -> None:
        """Change the state and wake all waiters.

        Raises:
            LifecycleError: the step is illegal; the state is unchanged.
        """
        with self._changed:
            if target not in _NEXT[self._state]:
                raise LifecycleError(self.name, self._state.value, target.value)
            self._state = target
            self._changed.notify_all()

    def require(self, *states: LifecycleState) -> None:
        """Insist on one of `states`.

        Raises:
            LifecycleError: the present state is another.
        """
        if self._state not in states:
            raise LifecycleError(self.name, self._state.value, " or ".join(s.value for s in states))

    def wait_for(self, *states: LifecycleState, timeout: float | None = None) -> bool:
        """Block until the state is one of `states`; False after `timeout` seconds (None waits for ever)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state in states, timeout)
