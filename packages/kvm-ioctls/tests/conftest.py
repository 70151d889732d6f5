"""Fixtures shared by the tests of this package, and the watch over what is called executed."""

import json
import os
import platform
from pathlib import Path

import pytest
from kvm_ioctls import Cap, ExitReason, Kvm, VcpuFd, VmFd
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._ffi import ioctl_name

# Which test executes what, {architecture: {name: [test, host]}}, for docs/kvm-coverage.md, by
# `make kvm-coverage`. What a complete KVM reports is the processor's: only the emulated host is held to it.
# A test of what some KVM has may be skipped, or ask for the capability and be told that there is none.
EXECUTED = {
    name: (test, host)
    for name, (test, host) in json.loads(Path(__file__).with_name("executed.json").read_text())
    .get(platform.machine(), {})
    .items()
    if host in ("any KVM", "some KVM") or os.environ.get("VMM_TESTHOST") == "1"
}
# Also of what has no method and goes by its number.
NAMES = {
    numbers[platform.machine()]: name
    for name, numbers in json.loads(Path(__file__).with_name("uapi.json").read_text())["ioctls"].items()
    if platform.machine() in numbers
}
RECORD = os.environ.get("KVM_IOCTLS_RECORD")
_seen = set()
_absent = set()


@pytest.fixture
def eventfd():
    """Yield a non-blocking eventfd."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def _watch(patch, kind, name, note):
    """Call `note` with the arguments and the answer of each call that the kernel did not refuse."""
    original = getattr(kind, name)

    def watched(self, *args, **kwargs):
        answer = original(self, *args, **kwargs)
        note(*args, answer)
        return answer

    patch.setattr(kind, name, watched)


def _note_ioctl(number, *_):
    _seen.add(NAMES.get(number) or ioctl_name(number))


def _note_exit(*values):
    _seen.add("KVM_RUN")
    if (reason := values[-1]) in set(ExitReason):
        _seen.add(f"KVM_EXIT_{ExitReason(reason).name}")


def _note_cap(cap, answer):
    if cap in set(Cap):
        (_seen if answer > 0 else _absent).add(f"KVM_CAP_{Cap(cap).name}")


@pytest.fixture(autouse=True)
def _watched(request, monkeypatch):
    """Note what a test executes, where it may be asked for."""
    _seen.clear()
    _absent.clear()
    if RECORD or _test_name(request.node) in {test for test, _ in EXECUTED.values()}:
        for kind in (OwnedFd, VcpuFd):
            for name in ("_ioctl", "_ioctl_value"):
                _watch(monkeypatch, kind, name, _note_ioctl)
        _watch(monkeypatch, VcpuFd, "run_raw", _note_exit)
        for kind in (Kvm, VmFd):
            _watch(monkeypatch, kind, "check_extension", _note_cap)


def _test_name(item):
    return f"{item.path.name}::{item.name}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that passed, or was skipped, without executing what the table says of it."""
    report = (yield).get_result()
    if call.when != "call" or report.failed or item.path.parent != Path(__file__).parent:
        return
    name = _test_name(item)
    if RECORD:
        if report.passed:
            with open(RECORD, "a") as file:
                file.write(json.dumps([name, sorted(_seen)]) + "\n")
        return
    promised = {
        what
        for what, (test, host) in EXECUTED.items()
        if test == name and not (host == "some KVM" and (report.skipped or what in _absent))
    }
    if missing := sorted(promised - (_seen if report.passed else set())):
        report.outcome = "failed"
        report.longrepr = f"docs/kvm-coverage.md says that {name} executes {', '.join(missing)}; it did not"
