"""Who may import whom: the floors of docs/architecture.md, checked on every import of every shipped file."""

import ast
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

FLOORS = {
    "vmm-memory": 0,
    "kvm-ioctls": 0,
    "vm-device": 0,
    "virtio-queue": 1,
    "vm-hypervisor": 1,
    "linux-loader": 1,
    "acpi-tables": 1,
    "virtio-devices": 2,
    "vmm-reference": 3,
}
BESIDE = "vmm-testhost"  # imports none of ours; only the top floor imports it


def may_import(package, other):
    """Whether code of `package` may import `other`."""
    if package == other:
        return True
    if BESIDE in {package, other}:
        return package == "vmm-reference"
    return FLOORS[other] < FLOORS[package]


def test_every_package_has_a_floor(packages):
    """A new package says where it stands."""
    assert set(packages) == {*FLOORS, BESIDE}


def test_imports_come_from_floors_below(package, packages):
    """Function-level, conditional and typing imports count too."""
    owners = {other.module: other.name for other in packages.values()}
    for source in package.sources:
        for name in source.imports():
            owner = owners.get(name.split(".")[0])
            if owner is not None:
                assert may_import(package.name, owner), f"{source.path} imports {name}"


def test_no_one_imports_anothers_private_module(package, packages):
    """Between packages only public modules and names are used."""
    others = {other.module for other in packages.values()} - {package.module}
    for source in package.sources:
        for name in source.imports():
            first, *rest = name.split(".")
            if first in others:
                assert not any(part.startswith("_") for part in rest), f"{source.path} imports {name}"


def early_imports(body):
    """Yield the import statements that run as their module does: not those of functions and type checkers."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from early_imports(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from early_imports(getattr(node, part, ()))


def circle(sources):
    """Return modules of which each imports the next as it loads, and the last the first; () without any."""
    names = {source.module for source in sources}
    graph = {}
    for source in sources:
        early = replace(source, tree=ast.Module([*early_imports(source.tree.body)], []))
        # Its own packages are there before a module is.
        others = {name for name in early.imports() if not f"{source.module}.".startswith(f"{name}.")}
        graph[source.module] = others & names
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def test_modules_do_not_import_in_circles(package):
    """Names load late, on any thread: two threads could meet in a circle, and see modules half made."""
    assert circle(package.sources) == ()


def test_a_circle_is_found(packages):
    """Of two modules, and not where one of them imports in a function."""
    some = packages["vmm-memory"].sources[0]
    early, late = "from vmm.b import B", "def f():\n    from vmm.b import B"
    for text, expected in ((early, {"vmm.a", "vmm.b"}), (late, set())):
        a = replace(some, module="vmm.a", tree=ast.parse(text))
        b = replace(some, module="vmm.b", tree=ast.parse("import vmm.a"))
        assert set(circle([a, b])) == expected


def test_nothing_imports_pytest_or_hypothesis_outside_testing(package):
    """What a VMM imports needs no test library: only `testing` modules and vmm-testhost's plugin do."""
    for source in package.sources:
        if ".testing" in source.module or package.name == BESIDE:
            continue
        roots = {name.split(".")[0] for name in source.imports()}
        assert not roots & {"pytest", "hypothesis", "_pytest"}, source.path
