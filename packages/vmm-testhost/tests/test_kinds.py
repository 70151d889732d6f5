"""The probes, on stand-ins for what a machine may lack."""

import os

import pytest
from vmm_testhost import _kinds


def opening(error):
    """Return an os.open that fails with that error."""

    def fail(*_args, **_kwargs):
        raise error

    return fail


def test_missing_device_names_the_cure(monkeypatch):
    """Without /dev/kvm the reason says what to run."""
    monkeypatch.setattr(os, "open", opening(FileNotFoundError(2, "No such file or directory")))
    assert _kinds.missing_kvm() == "/dev/kvm: No such file or directory: run under vmm-testhost"


def test_forbidden_device_names_the_group(monkeypatch):
    """A permission problem is mended by joining a group."""
    monkeypatch.setattr(os, "open", opening(PermissionError(13, "Permission denied")))
    assert _kinds.missing_kvm() == (
        "/dev/kvm: permission denied: add your user to group kvm, or run under vmm-testhost"
    )


def test_foreign_device_is_no_kvm(monkeypatch):
    """A file that opens but does not know the ioctl is not KVM."""
    real = os.open
    monkeypatch.setattr(os, "open", lambda _path, flags: real("/dev/null", flags))
    assert "KVM_GET_API_VERSION" in (_kinds.missing_kvm() or "")


@pytest.mark.parametrize(("module", "complete"), [("kvm_amd", True), ("kvm_intel", True), ("kvm_pvm", False)])
def test_completeness_follows_the_module(monkeypatch, tmp_path, module, complete):
    """kvm_intel and kvm_amd run ring 0 natively, another implementation does not."""
    (tmp_path / module).mkdir()
    monkeypatch.setattr(_kinds, "missing_kvm", lambda: None)
    monkeypatch.setattr(_kinds, "Path", lambda _: tmp_path)
    monkeypatch.setattr(_kinds.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("VMM_TESTHOST", raising=False)
    monkeypatch.delenv("VMM_KVM_FULL", raising=False)
    reason = _kinds.missing_kvm_full()
    assert (reason is None) == complete
    assert complete or reason == "this KVM (kvm_pvm) interprets ring 0: run under vmm-testhost"


def test_word_of_the_user_counts(monkeypatch):
    """VMM_KVM_FULL=1 overrides the module names."""
    monkeypatch.setattr(_kinds, "missing_kvm", lambda: None)
    monkeypatch.setenv("VMM_KVM_FULL", "1")
    assert _kinds.missing_kvm_full() is None


def test_testhost_is_not_nested(monkeypatch):
    """Inside an emulated host no second one is launched."""
    monkeypatch.setenv("VMM_TESTHOST", "1")
    assert _kinds.missing_testhost() == "inside the emulated host: run outside"
