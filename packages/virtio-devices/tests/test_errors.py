"""The exception tree and its fields."""

import inspect

import pytest
import virtio_devices
from virtio_devices import _errors


def test_every_error_has_the_root():
    """One root, and builtin kin where a caller expects them."""
    classes = [
        cls
        for _name, cls in inspect.getmembers(_errors, inspect.isclass)
        if cls.__module__ == _errors.__name__
    ]
    assert all(issubclass(cls, virtio_devices.VirtioDeviceError) for cls in classes)
    assert {cls.__name__ for cls in classes} <= set(virtio_devices.__all__)


def test_the_tree_is_drawn():
    """The docstring of the module names every class."""
    names = [name for name, cls in inspect.getmembers(_errors, inspect.isclass)]
    assert [name for name in names if name not in (_errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (virtio_devices.RequestError("d", 3, "why"), "d: request head=3: why"),
        (virtio_devices.TransportStateError("d", "running", "go"), "d is running; cannot go"),
        (virtio_devices.SavedStateError("f", 1, "2"), "saved state: f=1, expected 2"),
        (virtio_devices.ImageError("/p", "is bad", 5), "/p: is bad"),
        (virtio_devices.SourceError("/s", "is bad", 5), "/s: is bad"),
        (virtio_devices.DriverTimeoutError("answer", 2.0), "no answer within 2.0 s"),
    ],
)
def test_messages(error, text):
    """The message carries what went wrong, on what, and the value."""
    assert str(error) == text


def test_the_public_face_is_sorted_and_complete():
    """`__all__` is a sorted tuple of names that exist."""
    for module in (virtio_devices, __import__("virtio_devices.testing", fromlist=["x"])):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(
            getattr(module, name).__doc__ for name in module.__all__ if callable(getattr(module, name))
        )
