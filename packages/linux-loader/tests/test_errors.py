"""The exception tree."""

import inspect

import linux_loader
from linux_loader import LoaderError, _errors


def test_every_error_is_public_and_has_the_root():
    """All classes descend from LoaderError and are exported."""
    classes = [c for _, c in inspect.getmembers(_errors, inspect.isclass) if c.__module__ == _errors.__name__]
    assert len(classes) == 14
    for c in classes:
        assert issubclass(c, LoaderError)
        assert getattr(linux_loader, c.__name__) is c
        assert c.__name__ in (_errors.__doc__ or "")


def test_caller_errors_are_value_errors():
    """Arguments are ValueErrors, files are not."""
    assert issubclass(linux_loader.ConfigurationError, ValueError)
    assert issubclass(linux_loader.CmdlineTooLongError, ValueError)
    assert not issubclass(linux_loader.ImageError, ValueError)


def test_all_is_sorted_and_complete():
    """__all__ is sorted and each name exists."""
    names = linux_loader.__all__
    assert tuple(sorted(names)) == names
    assert all(hasattr(linux_loader, n) for n in names)
