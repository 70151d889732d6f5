"""Every name that a module exports says what it is, down to constants and fields; from the sources alone.

Those that private modules export to others of their package are held to it too.
"""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign)


def assigned(node):
    """Return the names that an assignment binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def statements(body):
    """Yield each statement with the one after it, those under a condition as well."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        yield node, after
        if isinstance(node, ast.If | ast.Try):
            yield from statements([*node.body, *node.orelse])


def definitions(body):
    """What a module or class defines, by name: (node, whether it has a docstring)."""
    found = {}
    for node, after in statements(body):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            documented = ast.get_docstring(node) is not None
            before = found.get(node.name)  # a property's setter needs none beside its getter
            found[node.name] = (node, documented or (before is not None and before[1]))
        elif isinstance(node, ASSIGNMENTS):
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            found |= {name: (node, text and isinstance(after.value.value, str)) for name in assigned(node)}
    return found


def members(node):
    """Names of a class that must be described: methods, constants, and fields that say their type.

    Of an enumeration only its methods, and of a "(struct NAME)" of the kernel, whose fields NAME describes.
    """
    bases = " ".join(map(ast.unparse, node.bases))
    known = "Enum" in bases or "Flag" in bases or "(struct " in (ast.get_docstring(node) or "")
    for name, (inner, _) in definitions(node.body).items():
        field = isinstance(inner, ast.AnnAssign) or (isinstance(inner, ast.Assign) and name.isupper())
        if not name.startswith("_") and (isinstance(inner, FUNCTIONS) or (field and not known)):
            yield name


class Names:
    """What the modules of all packages define and export."""

    def __init__(self, packages):
        self.sources = {source.module: source for package in packages.values() for source in package.sources}
        self.defined = {name: definitions(source.tree.body) for name, source in self.sources.items()}

    def exported(self, module):
        """The names of a module's `__all__`."""
        node, _ = self.defined[module].get("__all__", (None, False))
        return ast.literal_eval(node.value) if node is not None else ()

    def imported(self, module):
        """Yield (name, module, name there) of every name that a module imports from another."""
        source = self.sources[module]
        parent = module.split(".") if source.path.name == "__init__.py" else module.split(".")[:-1]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom):
                above = parent[: len(parent) - node.level + 1] if node.level else []
                home = ".".join([*above, *filter(None, [node.module])])
                yield from ((alias.asname or alias.name, home, alias.name) for alias in node.names)

    def origin(self, module, name):
        """Where a name of a module is defined: (module, name); None for what is not ours."""
        while module in self.sources and name not in self.defined[module]:
            found = (place[1:] for place in self.imported(module) if place[:2] != (name, module))
            module, name = next((place for place in found if place[1] == name), (None, name))
        return (module, name) if module in self.sources else None

    def described(self, module, name, member):
        """Whether a class, or one that it derives from, says what a member is, itself or in its docstring."""
        home = self.origin(module, name)
        node, _ = self.defined[home[0]][home[1]] if home else (None, False)
        if not isinstance(node, ast.ClassDef):
            return False
        inner, documented = definitions(node.body).get(member, (None, False))
        text = "" if isinstance(inner, FUNCTIONS) else ast.get_docstring(node) or ""
        named = re.search(rf"\b{member}\b", text)
        if documented or named:
            return True
        bases = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
        return any(self.described(home[0], base.id, member) for base in bases if isinstance(base, ast.Name))

    def missing(self, module):
        """Exported names without a docstring, as module.name or module.class.member."""
        for name in self.exported(module):
            if f"{module}.{name}" in self.sources:
                continue  # a module, and one of the faces itself
            home = self.origin(module, name)
            if home is None and module.endswith("._ffi"):
                continue  # from the C core
            assert home, f"{module}.{name} comes from nowhere"
            node, documented = self.defined[home[0]][home[1]]
            if not documented and name != "__version__":
                yield ".".join(home)
            for member in members(node) if isinstance(node, ast.ClassDef) else ():
                if not self.described(*home, member):
                    yield ".".join([*home, member])


@pytest.fixture(scope="module")
def names(packages):
    """Of all packages: some fill in a Protocol of another."""
    return Names(packages)


def test_exported_names_have_docstrings(names, package):
    """Classes, functions, methods, constants, and fields; an override may leave it to what it overrides."""
    assert not sorted({name for source in package.sources for name in names.missing(source.module)})


SILENT = '''
__all__ = ("BARE", "SAID", "Child", "Color", "Regs", "silent")
SAID = 1
"""One."""
BARE = 2
def silent(): ...
class Parent:
    """Has a `field`."""
    def said(self):
        """Say."""
class Child(Parent):
    """Has a limit."""
    LIMIT = 3
    field: int
    other: int
    def said(self): ...
    def unsaid(self): ...
    def _private(self): ...
class Color(Enum):
    """Colors."""
    RED = 1
class Regs:
    """Registers (struct kvm_regs)."""
    rax: int
    def pack(self): ...
'''


def test_what_is_missing():
    """Of a module with every kind: no less, and no more."""
    source = SimpleNamespace(path=Path("silent.py"), module="silent", tree=ast.parse(SILENT))
    names = Names({"silent": SimpleNamespace(sources=[source])})
    expected = {"BARE", "silent", "Child.LIMIT", "Child.other", "Child.unsaid", "Regs.pack"}
    assert set(names.missing("silent")) == {f"silent.{name}" for name in expected}
