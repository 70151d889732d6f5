"""What can go wrong around the emulated host.

    EmulatedHostError
    ├── SetupError            a tool or a package is missing; the message holds the one command to run
    │   └── KernelImageError  a kernel image or its module tree is not what it should be
    ├── HostCrashError        the host ended without giving the command's exit status
    └── HostTimeoutError      the command ran longer than its ``timeout``

Mistakes of the caller (an empty command, a negative size) raise ValueError or FileNotFoundError.
"""


class EmulatedHostError(Exception):
    """Base of every error this package raises on its own account."""


class SetupError(EmulatedHostError):
    """Something the host needs is missing and could not be fetched.

    Attributes:
        cure: the one command that mends it, or None when there is none.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(f"{message}; run: {cure}" if cure else message)
        self.cure = cure


class KernelImageError(SetupError):
    """A kernel image or module tree cannot be read."""


class HostCrashError(EmulatedHostError):
    """The emulated host ended before the command's exit status arrived.

    Attributes:
        kernel_log: the last lines of the host's kernel console.
        qemu_log: what QEMU wrote to its stderr.
        started: whether the command had been started.
    """

    def __init__(self, message: str, kernel_log: str, qemu_log: str, *, started: bool) -> None:
        parts = [message]
        if qemu_log:
            parts.append(f"QEMU said:\n{qemu_log}")
        parts.append(f"end of the host's kernel log:\n{kernel_log or '(empty)'}")
        super().__init__("\n".join(parts))
        self.kernel_log = kernel_log
        self.qemu_log = qemu_log
        self.started = started


class HostTimeoutError(EmulatedHostError):
    """The command did not end within its timeout; the host is gone.

    Attributes:
        timeout: the limit in seconds.
        stdout: what the command had written to a captured stdout, else None.
        stderr: the same for stderr.
    """

    def __init__(self, timeout: float, stdout: bytes | None = None, stderr: bytes | None = None) -> None:
        super().__init__(f"the command in the emulated host did not end within {timeout:g} s")
        self.timeout = timeout
        self.stdout = stdout
        self.stderr = stderr
