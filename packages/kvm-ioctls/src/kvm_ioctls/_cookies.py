"""Core scheduling: with whom a thread shares a core of the host (Linux 5.14).

Source: Documentation/admin-guide/hw-vuln/core-scheduling.rst of the kernel.
"""

from __future__ import annotations

from kvm_ioctls._ffi import check, ffi, lib

__all__ = ("core_cookie", "share_core")


_LAST_THREAD = 0x7FFF_FFFF


def _check_thread(thread: int) -> None:
    if not 0 <= thread <= _LAST_THREAD:
        raise ValueError(f"thread={thread} is not in 0..{_LAST_THREAD}")


def core_cookie(thread: int = 0) -> int:
    """Return a thread's cookie, 0 when it has none (PR_SCHED_CORE_GET).

    Args:
        thread: Its kernel thread id, 0..2^31-1; 0 is the calling thread.

    Raises:
        ValueError: No thread can have that id.
        KvmOSError: ENODEV where no core has two threads, EINVAL where the kernel has no core scheduling
            (CONFIG_SCHED_CORE), ESRCH for a thread that is not there, EPERM for one that is not ours.
    """
    _check_thread(thread)
    cookie = ffi.new("uint64_t *")
    check(lib.kvmx_core_cookie(thread, cookie), "PR_SCHED_CORE_GET", f"thread {thread or 'of the caller'}")
    return int(cookie[0])


def share_core(thread: int = 0) -> None:
    """Give the calling thread another thread's cookie, or a new one (PR_SCHED_CORE_SHARE_FROM, _CREATE).

    The threads of one core only ever run threads of the same cookie at a time.

    Args:
        thread: Whose, 0..2^31-1; 0 makes a new one.

    Raises:
        ValueError: No thread can have that id; the cookie is as before.
        KvmOSError: As ``core_cookie``; the cookie is as before.
    """
    _check_thread(thread)
    what = "PR_SCHED_CORE_SHARE_FROM" if thread else "PR_SCHED_CORE_CREATE"
    check(lib.kvmx_share_core(thread), what, f"thread {thread or 'of the caller'}")
