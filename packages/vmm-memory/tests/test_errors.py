"""The exception tree."""

import re

import vmm_memory
from vmm_memory import GuestMemoryError, _errors


def test_docstring_draws_the_tree():
    """Every exception is in the drawing, below its base, and the reverse."""
    drawn, path = {}, []
    for line in _errors.__doc__.splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = {path[depth - 1]} if depth else set()
            drawn[found[2]] |= {found[3]} if found[3] else set()
    actual = {
        name: {base.__name__ for base in getattr(_errors, name).__bases__} - {"Exception"}
        for name in _errors.__all__
    }
    assert drawn == actual


def test_one_root_and_all_public():
    """Whatever the package raises on its own is a GuestMemoryError, and can be imported from its face."""
    for name in _errors.__all__:
        assert issubclass(getattr(vmm_memory, name), GuestMemoryError)


def test_faces_are_sorted_and_complete():
    """__all__ is a sorted tuple, and each name in it has a docstring or is an alias."""
    assert list(vmm_memory.__all__) == sorted(vmm_memory.__all__)
    for name in vmm_memory.__all__:
        assert hasattr(vmm_memory, name)
