"""What kinds of tests this machine can run, and what to do about those it cannot."""

import fcntl
import os
import platform
from collections.abc import Callable
from pathlib import Path

KVM_GET_API_VERSION = 0xAE00  # linux/kvm.h: _IO(KVMIO, 0x00)
KVM_API_VERSION = 12  # frozen since Linux 2.6.22, Documentation/virt/kvm/api.rst 4.1

KINDS = {
    "pure": "needs no KVM and no privilege; given to every test that has no other kind",
    "kvm": "needs a /dev/kvm that opens; ring-0 guest code may be interpreted slowly",
    "kvm_full": "needs a complete KVM (kvm_intel, kvm_amd, or inside the emulated host)",
    "root_net": "needs root and /dev/net/tun",
    "arm64": "needs an AArch64 host",
    "testhost": "launches the emulated host itself (QEMU); run these serially",
}


def inside_testhost() -> bool:
    """Tell whether this process runs inside the emulated host (VMM_TESTHOST=1)."""
    return os.environ.get("VMM_TESTHOST") == "1"


def missing_kvm() -> str | None:
    """Say why ``/dev/kvm`` cannot be used, or None when it opens and speaks API version 12."""
    cure = "run under vmm-testhost"
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return f"/dev/kvm: permission denied: add your user to group kvm, or {cure}"
    except OSError as err:
        return f"/dev/kvm: {err.strerror}: {cure}"
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError as err:
        return f"/dev/kvm: KVM_GET_API_VERSION: {err.strerror}: {cure}"
    finally:
        os.close(fd)
    if version != KVM_API_VERSION:
        return f"/dev/kvm: API version {version}, need {KVM_API_VERSION}: {cure}"
    return None


def missing_kvm_full() -> str | None:
    """Say why this KVM is not complete, or None when ring 0 of a guest runs natively."""
    if (reason := missing_kvm()) is not None:
        return reason
    if inside_testhost() or os.environ.get("VMM_KVM_FULL") == "1":
        return None
    if platform.machine() == "aarch64":
        return None  # KVM on AArch64 has one implementation, and it needs EL2
    modules = Path("/sys/module")
    if (modules / "kvm_intel").exists() or (modules / "kvm_amd").exists():
        return None
    others = sorted(p.name for p in modules.glob("kvm_*")) or ["neither kvm_intel nor kvm_amd"]
    return f"this KVM ({', '.join(others)}) interprets ring 0: run under vmm-testhost"


def missing_root_net() -> str | None:
    """Say why taps cannot be made here, or None for root with ``/dev/net/tun``."""
    if os.geteuid() != 0:
        return "needs root: run under vmm-testhost"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        return f"/dev/net/tun: {err.strerror}: modprobe tun, or run under vmm-testhost"
    return None


def missing_arm64() -> str | None:
    """Say that this machine is not AArch64, or None when it is."""
    machine = platform.machine()
    return None if machine == "aarch64" else f"this machine is {machine}, the test needs aarch64"


def missing_testhost() -> str | None:
    """Say why no emulated host can be launched from here, or None when it can."""
    if inside_testhost():
        return "inside the emulated host: run outside"
    if os.geteuid() == 0:
        return None  # whatever is missing gets installed
    from ._apt import missing_tools  # noqa: PLC0415 - the only check that needs it

    missing = missing_tools()
    return f"missing {' '.join(missing)}: sudo apt-get install {' '.join(missing)}" if missing else None


CHECKS: dict[str, Callable[[], str | None]] = {
    "kvm": missing_kvm,
    "kvm_full": missing_kvm_full,
    "root_net": missing_root_net,
    "arm64": missing_arm64,
    "testhost": missing_testhost,
}
