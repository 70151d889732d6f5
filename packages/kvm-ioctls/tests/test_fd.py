"""Descriptors have one owner, and children are kept out."""

import os
import warnings

import pytest
from kvm_ioctls import ClosedError, DeviceFd, ForkedError
from kvm_ioctls._fd import generation


def _device():
    return DeviceFd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), "a device")


def test_context_manager_closes():
    """Leaving the block closes the descriptor, once."""
    with _device() as device:
        fd = device.fileno()
    device.close()

    assert device.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_closed_object_names_itself():
    """Using a closed object says which one."""
    device = _device()
    device.close()

    with pytest.raises(ClosedError, match=r"^a device is closed$"):
        device.fileno()


def test_forgotten_object_warns_and_closes():
    """Dropping the last reference closes with a ResourceWarning."""
    device = _device()
    fd = device.fileno()
    with pytest.warns(ResourceWarning, match=r"^a device was never closed$"):
        del device

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_child_is_refused_and_closes_only_its_copy():
    """A forked child gets ForkedError, may close, and the parent's descriptor stays."""
    with _device() as device:
        before = generation()
        pid = os.fork()
        if pid == 0:
            try:
                device.fileno()
            except ForkedError as err:
                device.close()
                os._exit(0 if "belongs to the parent" in str(err) and generation() == before + 1 else 2)
            os._exit(1)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert generation() == before
        assert os.fstat(device.fileno())


def test_child_does_not_warn_for_the_parents_objects():
    """Objects inherited by fork are not the child's to complain about."""
    device = _device()
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del device
        os._exit(len(caught))

    device.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_repr_shows_subject_and_number():
    """Repr names the object and its descriptor."""
    with _device() as device:
        assert repr(device) == f"<DeviceFd a device fd={device.fileno()}>"
