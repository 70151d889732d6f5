"""The exception tree and what its members carry."""

import errno

import kvm_ioctls
import pytest
from kvm_ioctls import KvmError, KvmOSError, MsrError, VcpuBusyError, _errors


def test_every_error_has_the_one_root():
    """Catching KvmError catches everything this package raises on its own."""
    assert all(issubclass(getattr(kvm_ioctls, name), KvmError) for name in _errors.__all__)


def test_the_docstring_draws_the_whole_tree():
    """Every class is drawn in the module's tree."""
    assert all(name in _errors.__doc__ for name in _errors.__all__)


def test_os_errors_keep_their_errno():
    """errno, ioctl and subject are fields; the text names the errno and the hint."""
    err = KvmOSError(errno.EPERM, "KVM_RUN", "vCPU 3", "because")

    assert (err.errno, err.ioctl, err.subject) == (errno.EPERM, "KVM_RUN", "vCPU 3")
    assert str(err) == "KVM_RUN on vCPU 3: Operation not permitted (EPERM); because"


def test_msr_error_names_the_entry():
    """The refused MSR, its place and how many were done are in fields and text."""
    err = MsrError("KVM_SET_MSRS", "vCPU 0", 0x1234, 2, 5)

    assert (err.index, err.completed, err.errno) == (0x1234, 2, errno.EINVAL)
    assert "MSR 0x1234 (entry 2 of 5) was refused, 2 before it were done" in str(err)


def test_busy_error_says_what_to_do():
    """The thread is named and the cure is in the text."""
    err = VcpuBusyError(1, 4711)

    assert err.thread == 4711
    assert str(err) == "vCPU 1 is in use by thread 4711; kick() it and wait until its run() has returned"


@pytest.mark.parametrize("number", [9999])
def test_unknown_errno_is_shown_as_number(number):
    """An errno without a name still makes a message."""
    assert f"({number})" in str(KvmOSError(number, "KVM_RUN", "vCPU 0"))
