"""The public face of each package: sorted, each name with one home."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def faces(package):
    """The public modules of the package, imported, with their sources."""
    return [
        (importlib.import_module(source.module), source)
        for source in package.sources
        if source.public and source.path.name != "__main__.py"
    ]


def objects(module):
    """Public classes and functions of a module by name."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            yield name, value


def test_public_modules_say_what_is_public(faces):
    """Each has a docstring and a tuple `__all__` of names it has; one that defines nothing needs none."""
    for module, source in faces:
        assert module.__doc__, module
        if len(source.tree.body) == 1:  # nothing but the docstring
            continue
        names = getattr(module, "__all__", None)
        assert isinstance(names, tuple), f"{module.__name__}.__all__ is not a tuple"
        assert len(names) == len(set(names)), module.__name__
        assert all(hasattr(module, name) for name in names), module.__name__
        private = [name for name in names if name.startswith("_") and name != "__version__"]
        assert not private, module.__name__


def homes_for_checkers(source):
    """What a face that loads late tells a type checker: (module, name) of each import under TYPE_CHECKING."""
    for node in source.tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                yield from ((imported.module, alias.name) for alias in imported.names)


def test_late_names_are_where_a_type_checker_finds_them(faces):
    """`_HOMES`, by which names are loaded when they are first used, says the same as the imports above it."""
    for module, source in faces:
        if not hasattr(module, "_HOMES"):
            continue
        at_run_time = {
            (f"{source.module}.{home}", name) for home, names in module._HOMES.items() for name in names
        }
        submodules = {
            (module.__name__, name) for name in module.__all__ if inspect.ismodule(getattr(module, name))
        }
        assert at_run_time | submodules == set(homes_for_checkers(source)), source.module
        assert set(module.__all__) <= set(dir(module))


def test_what_loads_late_names_is_the_same_everywhere(packages):
    """Each package has a copy, for it is installed by itself; acpi-tables' also knows public submodules."""
    sources = [source.path.read_text() for package in packages.values() for source in package.sources]
    copies = [text[text.index("_HOME_OF = ") :] for text in sources if "_HOME_OF = " in text]
    submodules = re.compile(r"        if name in \{.*\}:\n            return import_module\(.*\)\n")
    assert len(copies) > 1
    assert len({submodules.sub("", copy) for copy in copies}) == 1


def test_fields_have_types_that_can_be_looked_up(faces):
    """What makes and checks values by their annotations (attrs.resolve_types, cattrs) finds all of them."""
    for module, _ in faces:
        for name, value in objects(module):
            if vars(value).keys() & {"__attrs_attrs__", "__dataclass_fields__", "_fields"}:
                assert set(vars(value).get("__annotations__", ())) <= set(typing.get_type_hints(value)), name


def functions(value):
    """A function itself, or the public methods and properties of a class, those of its bases included."""
    for base in getattr(value, "__mro__", ()):
        for name, member in vars(base).items():
            made = getattr(member, "fget", getattr(member, "__func__", member))
            if inspect.isfunction(made) and not name.startswith("_"):
                yield made
    if inspect.isfunction(value):
        yield value


def test_signatures_name_what_can_be_looked_up(faces):
    """What loads late is named by way of its package: `typing.get_type_hints` finds every public name."""
    public = {name for module, _ in faces for name in getattr(module, "__all__", ())}
    missing = set()
    for function in (
        made for module, _ in faces for _, value in objects(module) for made in functions(value)
    ):
        try:
            typing.get_type_hints(function)
        except NameError as error:
            missing |= {f"{function.__qualname__}: {error}"} if error.name in public else set()
    assert not missing


def test_one_rule_sorts_them():
    """Ruff's RUF022, the order of isort, for every `__all__`, private modules included."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview", "--select", "RUF022"]
    done = subprocess.run([*command, "packages"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_each_name_has_one_home(package, faces):
    """A class or function is public in one module, and it was made in this package."""
    homes = {}
    for module, _ in faces:
        for name, value in objects(module):
            assert value.__module__.split(".")[0] == package.module, f"{module.__name__}.{name}"
            homes.setdefault(id(value), []).append(f"{module.__name__}.{name}")
    assert not [names for names in homes.values() if len(names) > 1]
