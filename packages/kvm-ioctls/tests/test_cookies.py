"""Core scheduling, on kernels that have it and on those that have not."""

import errno
import threading

import pytest
from kvm_ioctls import KvmOSError, core_cookie, share_core


def test_cookies_or_a_named_error():
    """Where there is core scheduling a new cookie is one's own; elsewhere the error names the call."""
    found = []

    def worker():
        try:
            found.append(core_cookie())
            share_core()
            found.append(core_cookie())
        except KvmOSError as error:
            found.append(error)

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    if isinstance(found[0], KvmOSError):
        assert found[0].errno in (errno.EINVAL, errno.ENODEV)
        assert str(found[0]).startswith("PR_SCHED_CORE_GET on thread of the caller: ")
        with pytest.raises(KvmOSError, match=r"^PR_SCHED_CORE_CREATE on thread of the caller: "):
            share_core()
        with pytest.raises(KvmOSError, match=r"^PR_SCHED_CORE_SHARE_FROM on thread 1: "):
            share_core(1)
    else:
        before, after = found
        assert (before, after != 0, core_cookie()) == (0, True, 0)
