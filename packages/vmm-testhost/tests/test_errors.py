"""Messages and fields of the errors."""

from vmm_testhost import EmulatedHostError, HostCrashError, HostTimeoutError, KernelImageError, SetupError


def test_cure_is_in_message_and_field():
    """A setup error ends with the command to run and keeps it."""
    error = SetupError("zstd is missing", "sudo apt-get install zstd")
    assert str(error) == "zstd is missing; run: sudo apt-get install zstd"
    assert error.cure == "sudo apt-get install zstd"


def test_crash_shows_both_logs():
    """A crash shows what QEMU said and the kernel's last words, and says so when there are none."""
    text = str(HostCrashError("gone", "", "qemu: no", started=False))
    assert text == "gone\nQEMU said:\nqemu: no\nend of the host's kernel log:\n(empty)"


def test_one_root():
    """Every error has the one root."""
    for kind in (HostCrashError, HostTimeoutError, KernelImageError, SetupError):
        assert issubclass(kind, EmulatedHostError)
