"""The machine for C11: of each place all messages written so far, of each thread a view of what it may read.

A store adds a message to the place's order, a load reads any message not older than the thread's view. What a
release store has seen (its thread's view) travels with the message and is joined by an acquire load. Fences
of order SEQ_CST share one view. See `Model.C11`. `Check` stays pending until something orders it; while it
does, every message that it could read must hold what it expects, and to read the oldest in the end leaves
most behaviours open.
"""

from collections.abc import Iterator
from typing import NamedTuple

from virtio_queue.testing._machines import Machine, Where, replaced
from virtio_queue.testing._operations import Add, Check, Fence, Load, Notify, Order, Sleep, Store

_View = tuple[int, ...]  # for each place: the position of the oldest message that may be read


class _Message(NamedTuple):
    value: int
    view: _View
    glued: bool = False  # an atomic addition to the message before it: nothing comes between them


class _Views(NamedTuple):
    now: _View  # what every access may read
    acquired: _View  # what it may read after an acquire fence
    released: _View  # what its relaxed stores carry: its view at the last release fence
    pending: tuple[Check, ...] = ()


class ViewState(NamedTuple):
    """Programs, messages, views and bells."""

    where: tuple[Where, ...]
    messages: tuple[tuple[_Message, ...], ...]
    views: tuple[_Views, ...]
    fenced: _View
    bells: tuple[tuple[str, _View], ...] = ()


def _join(one: _View, other: _View) -> _View:
    return one if one == other else tuple(map(max, one, other))


class ViewMachine(Machine[ViewState]):
    """C11."""

    def start(self) -> ViewState:
        """One message at each place, seen by all."""
        zero = (0,) * len(self.initial)
        messages = tuple((_Message(value, zero),) for value in self.initial)
        views = (_Views(zero, zero, zero),) * len(self.threads)
        return ViewState(self.begin(), messages, views, zero)

    def violation(self, state: ViewState) -> str | None:
        """A pending check that could read another value."""
        for index, views in enumerate(state.views):
            for check in views.pending:
                place = self.place[check.place]
                for message in state.messages[place][views.now[place] :]:
                    if message.value != check.expected:
                        return self.wrong(index, check, message.value)
        return None

    def steps(self, state: ViewState) -> Iterator[tuple[str, ViewState]]:
        """Each thread's next operation, with every value it could read or place it could take."""
        for index in self.storing(state):
            # A release store ends what is pending, and that could still have seen stores of others.
            if not state.views[index].pending:
                yield from self._operate(state, index)
                return
        for index in range(len(self.threads)):
            yield from self._operate(state, index)

    def _operate(self, state: ViewState, index: int) -> Iterator[tuple[str, ViewState]]:
        operation = self.next(state, index)
        views = state.views[index]
        match operation:
            case None:
                return
            case Load():
                yield from self._load(state, index, operation)
                return
            case Store():
                yield from self._store(state, index, operation)
                return
            case Add():
                yield from self._add(state, index, operation)
                return
            case Check():
                changed = self._with(state, index, views._replace(pending=(*views.pending, operation)))
            case Fence(order):
                changed = self._fence(state, index, order)
            case Notify(bell):
                rung = dict(state.bells)
                rung[bell] = _join(rung.get(bell, views.now), views.now)
                settled = self._with(state, index, views._replace(pending=()))
                changed = settled._replace(bells=tuple(sorted(rung.items())))
            case Sleep(bell):
                rung = dict(state.bells)
                if bell not in rung:
                    return
                now = _join(views.now, rung.pop(bell))
                heard = _Views(now, _join(views.acquired, now), views.released)
                changed = self._with(state, index, heard)._replace(bells=tuple(sorted(rung.items())))
        yield self.label(index, str(operation)), self._moved(changed, index, 0)

    def _with(self, state: ViewState, index: int, views: _Views) -> ViewState:
        return state._replace(views=replaced(state.views, index, views))

    def _moved(self, state: ViewState, index: int, value: int) -> ViewState:
        return _compact(state._replace(where=self.sent(state, index, value)))

    def _read(self, state: ViewState, index: int, place: int, position: int, *, acquires: bool) -> ViewState:
        """The thread's views once it has read a message."""
        views = state.views[index]
        carried = state.messages[place][position].view
        now = _join(replaced(views.now, place, position), carried if acquires else views.now)
        now = replaced(now, place, max(now[place], position))
        acquired = _join(_join(views.acquired, carried), now)
        return self._with(state, index, views._replace(now=now, acquired=acquired))

    def _ended(self, state: ViewState, index: int, place: str, *, all_of_them: bool = False) -> ViewState:
        """The state with pending checks performed: of one place (coherence), or all."""
        views = state.views[index]
        left = () if all_of_them else tuple(check for check in views.pending if check.place != place)
        return state if left == views.pending else self._with(state, index, views._replace(pending=left))

    def _load(self, state: ViewState, index: int, load: Load) -> Iterator[tuple[str, ViewState]]:
        place = self.place[load.place]
        ready = self._ended(state, index, load.place)
        for position in range(ready.views[index].now[place], len(ready.messages[place])):
            value = ready.messages[place][position].value
            stale = len(ready.messages[place]) - 1 - position
            note = f" ({stale} behind)" if stale else ""
            read = self._read(ready, index, place, position, acquires=load.order.acquires)
            yield self.label(index, f"{load} = {value}{note}"), self._moved(read, index, value)

    def _store(self, state: ViewState, index: int, store: Store) -> Iterator[tuple[str, ViewState]]:
        place = self.place[store.place]
        ready = self._ended(state, index, store.place, all_of_them=store.order.releases)
        order = ready.messages[place]
        for position in range(ready.views[index].now[place] + 1, len(order) + 1):
            if position < len(order) and order[position].glued:
                continue
            written = self._written(ready, index, store, position)
            yield self.label(index, str(store)), self._moved(written, index, 0)

    def _add(self, state: ViewState, index: int, add: Add) -> Iterator[tuple[str, ViewState]]:
        place = self.place[add.place]
        ready = self._ended(state, index, add.place, all_of_them=add.order.releases)
        order = ready.messages[place]
        for position in range(ready.views[index].now[place], len(order)):
            if position + 1 < len(order) and order[position + 1].glued:
                continue
            before = order[position].value
            read = self._read(ready, index, place, position, acquires=add.order.acquires)
            kind = Order.RELEASE if add.order.releases else Order.RELAXED
            store = Store(add.place, before + add.value, kind)
            written = self._written(read, index, store, position + 1, glued=True)
            yield self.label(index, f"{add} = {before}"), self._moved(written, index, before)

    def _written(
        self, state: ViewState, index: int, store: Store, position: int, *, glued: bool = False
    ) -> ViewState:
        """The state with a message at a position of the place's order, and all views in step."""
        place = self.place[store.place]
        state = _opened(state, place, position)
        views = state.views[index]
        now = replaced(views.now, place, position)
        base = now if store.order.releases else views.released
        carried = replaced(base, place, max(base[place], position))
        if glued:  # a release sequence goes on through an atomic addition
            carried = _join(carried, state.messages[place][position - 1].view)
        message = _Message(store.value, carried, glued)
        messages = (*state.messages[place][:position], message, *state.messages[place][position:])
        seen = views._replace(now=now, acquired=_join(views.acquired, now))
        return self._with(state, index, seen)._replace(messages=replaced(state.messages, place, messages))

    def _fence(self, state: ViewState, index: int, order: Order) -> ViewState:
        views, fenced = state.views[index], state.fenced
        now, released = views.now, views.released
        if order.acquires:
            now = views.acquired
        if order is Order.SEQ_CST:
            now = fenced = _join(now, fenced)
        if order.releases:
            released = now
        changed = _Views(now, _join(views.acquired, now), released)
        return self._with(state, index, changed)._replace(fenced=fenced)


class _Move(NamedTuple):
    """What becomes of positions from `at` on when messages are put in or dropped; none goes below 0."""

    place: int
    at: int
    by: int


def _moved(view: _View, moves: list[_Move]) -> _View:
    positions = list(view)
    for place, at, by in moves:
        if positions[place] >= at:
            positions[place] = max(positions[place] + by, 0)
    return tuple(positions)


def _mapped(state: ViewState, moves: list[_Move]) -> ViewState:
    """The state with every view moved."""
    return ViewState(
        state.where,
        tuple(
            tuple(_Message(value, _moved(view, moves), glued) for value, view, glued in order)
            for order in state.messages
        ),
        tuple(
            _Views(_moved(now, moves), _moved(acquired, moves), _moved(released, moves), pending)
            for now, acquired, released, pending in state.views
        ),
        _moved(state.fenced, moves),
        tuple((bell, _moved(view, moves)) for bell, view in state.bells),
    )


def _opened(state: ViewState, place: int, position: int) -> ViewState:
    """Room for a message at a position: what was there and after it is one further."""
    if position == len(state.messages[place]):
        return state
    return _mapped(state, [_Move(place, position, 1)])


def _compact(state: ViewState) -> ViewState:
    """Without messages that nobody can read any more, so that equal states look equal."""
    first, *others = [views.now for views in state.views]
    oldest = tuple(map(min, first, *others)) if others else first
    moves = [_Move(place, 0, -position) for place, position in enumerate(oldest) if position]
    if not moves:
        return state
    kept = tuple(order[position:] for order, position in zip(state.messages, oldest, strict=True))
    return _mapped(state._replace(messages=kept), moves)
