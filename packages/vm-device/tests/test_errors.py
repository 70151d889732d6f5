"""The exception tree, and the package's public face."""

import inspect

import pytest
import vm_device
import vm_device.platform
import vm_device.testing
from vm_device import PlatformError, RangeOverlapError, VmDeviceError
from vm_device.platform import AddressRange, AddressSpace

FACES = (vm_device, vm_device.platform, vm_device.testing)


def test_one_root():
    """Every exception of the package derives from the root and from the builtin its blame belongs to."""
    errors = [getattr(vm_device, name) for name in vm_device.__all__ if name.endswith("Error")]
    assert len(errors) == 13
    for error in errors:
        assert issubclass(error, VmDeviceError)
        assert error is VmDeviceError or issubclass(error, (ValueError, LookupError, RuntimeError))


def test_fields_are_kept():
    """Handlers can look at the values instead of parsing the message."""
    a = AddressRange(AddressSpace.PIO, 0x10, 4)
    error = RangeOverlapError(a, a)
    assert (error.range, error.other) == (a, a)
    with pytest.raises(PlatformError) as caught:
        AddressRange(AddressSpace.PIO, 0x10000, 4)
    assert (caught.value.field, caught.value.value) == ("base", 0x10000)
    assert str(caught.value) == "base=0x10000: outside PIO 0..0xffff"


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_public_names(face):
    """__all__ is a sorted tuple, each name has one home and a docstring, and so has each method."""
    assert list(face.__all__) == sorted(face.__all__)
    for name in face.__all__:
        thing = getattr(face, name)
        assert [other.__name__ for other in FACES if name in other.__all__] == [face.__name__]
        assert thing.__doc__, name
        for method, function in inspect.getmembers(thing, inspect.isfunction):
            if not method.startswith("_"):
                assert function.__doc__, f"{name}.{method}"
