"""The public face: sorted, documented, one home per name."""

import ast
from pathlib import Path

import kvm_ioctls
from kvm_ioctls import Cap, ExitReason, _numbers, testing

SRC = Path(kvm_ioctls.__file__).parent


def test_all_is_sorted_and_complete():
    """Every name of __all__ exists, once, in order."""
    for module in (kvm_ioctls, testing):
        assert list(module.__all__) == sorted(set(module.__all__), key=lambda n: (not n.isupper(), n))
        assert all(hasattr(module, name) for name in module.__all__)


def test_every_public_definition_has_a_docstring():
    """Public classes, functions and methods say what they do."""
    bare = []
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                setter = any(ast.unparse(d).endswith(".setter") for d in node.decorator_list)
                nested = path.name == "_wire.py" or setter
                if not ast.get_docstring(node) and not nested:
                    bare.append(f"{path.name}:{node.name}")

    assert bare == []


def test_only_one_module_imports_the_core():
    """The C extension has one door."""
    users = {path.name for path in SRC.rglob("*.py") if "kvm_ioctls._core" in path.read_text()}

    assert users == {"_ffi.py"}


def test_raw_pointers_explain_themselves():
    """Each cast and from_buffer has a SAFETY comment in the lines above it."""
    silent = []
    for path in SRC.rglob("*.py"):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if ("ffi.cast(" in line or "ffi.from_buffer(" in line or "ffi.gc(" in line) and not any(
                "SAFETY:" in above for above in lines[max(0, i - 5) : i]
            ):
                silent.append(f"{path.name}:{i + 1}")

    assert silent == []


def test_numbers_kept_apart_are_those_of_the_enums():
    """A start names few of them and does not build the enums."""
    kinds = {"CAP": Cap, "EXIT": ExitReason}
    for name in filter(str.isupper, vars(_numbers)):
        kind, _, member = name.partition("_")
        assert getattr(_numbers, name) == kinds[kind][member]
