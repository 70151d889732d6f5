"""Trials record what is done to them, and tell it as a Python script that does it again."""

import functools
import importlib
import importlib.machinery
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Concatenate, ParamSpec, Self, TypeVar, cast

import attrs

from virtio_queue.testing._watchdog import comes_back

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", bound="Trial")

_TITLE = (
    "# Found by virtio_queue.testing. Does it again, without Hypothesis; fails where the implementation does."
)
_HOMES = ("virtio_queue", "virtio_queue.testing")


@attrs.frozen
class Step:
    """One call of a trial's method.

    Attributes:
        name: The method.
        arguments: Its keyword arguments.
    """

    name: str
    arguments: Mapping[str, object] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.name}({_listed(self.arguments)})"


def _listed(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={_source(value)}" for name, value in arguments.items())


def _source(value: object) -> str:
    home = _home(value) if callable(value) else None
    return repr(value) if home is None else home[1]


class Trial:
    """What all trials have: the steps so far, and their script.

    Attributes:
        steps: Every step, in order, the failing one included.
    """

    _simple_steps: ClassVar[Sequence[Step]] = ()  # what may stand for two others in a shortened script

    def __init__(self, subject: object, options: Mapping[str, object]) -> None:
        self.steps: list[Step] = []
        self._subject = subject
        self._options = options

    def _check(self) -> None:
        """What must hold after every step."""

    def perform(self, step: Step) -> None:
        """Take a step that another trial recorded, or a strategy made.

        Args:
            step: Its name is that of a public method.

        Raises:
            ValueError: There is no such step.
            AssertionError: As the step.
        """
        method = getattr(type(self), step.name, None)
        if not hasattr(method, "is_step"):
            raise ValueError(f"{step.name!r} is no step of {type(self).__name__}")
        getattr(self, step.name)(**step.arguments)

    def _outcome(self, steps: Sequence[Step]) -> type[Exception] | None:
        """What a fresh trial ends with after these steps."""
        make = cast("Callable[..., Self]", type(self))
        try:
            trial = make(self._subject, **self._options)
            for taken in steps:
                trial.perform(taken)
        except Exception as error:  # noqa: BLE001 - whatever the subject does wrong
            return type(error)
        return None

    def shortened(self) -> list[Step]:
        """The steps without those that the failure does not need, found by trying.

        Returns:
            Steps that end with the same exception, a simple one perhaps in the place of two; all of them when
            they do not fail again.
        """
        steps = list(self.steps)
        failure = self._outcome(steps)
        while failure is not None:
            shorter = (fewer for fewer in self._shorter(steps) if self._outcome(fewer) is failure)
            if (found := next(shorter, None)) is None:
                break
            steps = found
        return steps

    def _shorter(self, steps: Sequence[Step]) -> Iterator[list[Step]]:
        """Everything with one or two steps less that is worth a try."""
        # One at a time; where none can go alone, two that only make sense together.
        pairs = list(itertools.combinations(range(len(steps)), 2))
        for left_out in (*((place,) for place in reversed(range(len(steps)))), *pairs):
            yield [taken for place, taken in enumerate(steps) if place not in left_out]
        for first, second in pairs:
            for simple in self._simple_steps:
                before, between, after = steps[:first], steps[first + 1 : second], steps[second + 1 :]
                yield [*before, simple, *between, *after]
                yield [*before, *between, simple, *after]

    def script(self, steps: Sequence[Step] | None = None) -> str:
        """The steps so far as a Python program that needs neither Hypothesis nor pytest.

        A class that cannot be imported by name is loaded from its file; one made inside a function leaves a
        line to be filled in.

        Args:
            steps: These instead, such as those of `shortened`.
        """
        name, lines = _introduction(self._subject)
        for value in self._options.values():
            if callable(value):
                lines += _introduction(value)[1]
        made = f"trial = {type(self).__name__}({name}"
        body = [f"{made}, {_listed(self._options)})" if self._options else f"{made})"]
        body += [f"trial.{taken}" for taken in (self.steps if steps is None else steps)]
        return "\n".join([_TITLE, *_imports(body, lines), "", *body, 'print("nothing is wrong")', ""])


def step(method: Callable[Concatenate[_T, _P], _R]) -> Callable[Concatenate[_T, _P], _R]:
    """Make a method a step: recorded before it runs, checked after it, and not for ever."""
    names = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def recorded(self: _T, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        self.steps.append(Step(method.__name__, dict(zip(names, args, strict=False)) | kwargs))
        with comes_back(method.__name__):
            result = method(self, *args, **kwargs)
            self._check()
        return result

    recorded.is_step = True  # type: ignore[attr-defined]
    return recorded


def _imports(body: list[str], extra: list[str]) -> list[str]:
    """Import lines for our own names in the body, before those of the subject."""
    text = "\n".join(body)
    lines = []
    for home in _HOMES:
        module = importlib.import_module(home)
        names = [name for name in module.__all__ if f"{name}(" in text]
        lines += [f"from {home} import {', '.join(names)}"] if names else []
    return list(dict.fromkeys(lines + extra))


def _home(value: object) -> tuple[str, str] | None:
    """Public module and name of a class or function; None for what no module names."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not name.isidentifier():
        return None
    parts = module.split(".")
    candidates = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    for candidate in candidates:
        if _has(candidate, name, value):
            return candidate, name
    return module, name


def _has(module: str, name: str, value: object) -> bool:
    try:
        return getattr(importlib.import_module(module), name, None) is value
    except ImportError:
        return False


def _introduction(subject: object) -> tuple[str, list[str]]:
    """How a script names the subject, and the lines before that."""
    home = _home(subject)
    if home is None:
        name = getattr(subject, "__name__", "subject")
        name = name if name.isidentifier() else "subject"
        return name, [f"{name} = ...  # fill in: {subject!r} has no name that a script could import"]
    module, name = home
    if _has(module, name, subject) and _findable(module):
        return name, [f"from {module} import {name}"]
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return name, [f"{name} = ...  # fill in: {module} is in no file"]
    return name, ["import runpy", f"{name} = runpy.run_path({file!r})[{name!r}]"]


def _findable(module: str) -> bool:
    """Whether another process would find it: a program or a test module is only known here."""
    parts = module.split(".")
    named = all(part.isidentifier() for part in parts)
    return named and importlib.machinery.PathFinder.find_spec(parts[0]) is not None
