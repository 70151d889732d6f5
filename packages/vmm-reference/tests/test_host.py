"""Where the guest runs, from a cached measurement."""

import json
import os
import subprocess
import sys

import attrs
import pytest
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import KvmReport
from vmm_reference import HostError, _host
from vmm_reference._arch import HOST

GOOD = KvmReport(0.4, 900.0, True, 254, {"IRQCHIP": 1})
SLOW = attrs.evolve(GOOD, ns_per_instruction=320.0)
SLOW_SUMMARY = "/dev/kvm runs ring 0 interpreted (320.0 ns per instruction)"


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A cache folder of the test's own, /dev/kvm that opens, and a measurement: list of results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_host.os, "access", lambda *_: True)
    results = []

    def measure():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(_host, "measure", measure)
    return results


def test_measured_once_a_boot(measured, tmp_path):
    """The second question is answered from the cache."""
    measured.append(GOOD)
    assert _host.probe() == _host.probe() == GOOD
    assert [path.name for path in (tmp_path / "vmm").iterdir()] == ["kvm-probe.json"], "no scratch file left"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b'{"boot_id": "another", "report": {}}',
        b'{"boot_id": "BOOT"}',
        b'{"boot_id": "BOOT", "report": []}',
        b'{"boot_id": "BOOT", "report": {"ns_per_instruction": 1}}',
        json.dumps({"boot_id": "BOOT", "report": attrs.asdict(GOOD) | {"ns_per_exit": "fast"}}).encode(),
        json.dumps({"boot_id": "BOOT", "report": attrs.asdict(GOOD) | {"capabilities": [1]}}).encode(),
        json.dumps({"boot_id": "BOOT", "report": attrs.asdict(GOOD) | {"new_field": 1}}).encode(),
    ],
)
def test_a_cache_that_is_none(measured, tmp_path, content):
    """Torn, foreign, old or newer caches are measured over and replaced."""
    file = tmp_path / "vmm" / "kvm-probe.json"
    file.parent.mkdir()
    file.write_bytes(content.replace(b"BOOT", _host._boot_id().encode()))
    measured.append(SLOW)
    assert _host.probe() == _host.probe() == SLOW


def test_cache_folder_that_is_a_file(measured, tmp_path):
    """Whatever is wrong with the folder, the answer is the measurement."""
    (tmp_path / "vmm").write_text("in the way")
    measured += [GOOD, GOOD]
    assert [_host.probe(), _host.probe()] == [GOOD, GOOD]


def test_choices(measured):
    """Auto takes a complete KVM; each choice says why."""
    assert _host.choose("emulated") == _host.HostChoice("emulated", "asked for")
    measured.append(GOOD)
    for wanted in ("auto", "kvm"):
        assert _host.choose(wanted) == _host.HostChoice("kvm", GOOD.summary)


def test_incomplete_kvm(measured):
    """Auto falls back with the reason; kvm is refused with it and the cure."""
    measured.append(SLOW)
    assert _host.choose("auto") == _host.HostChoice("emulated", SLOW_SUMMARY)
    with pytest.raises(HostError) as caught:
        _host.choose("kvm")
    assert str(caught.value) == (
        f"--host kvm: {SLOW_SUMMARY}; a stock kernel does not run here, use --host emulated"
    )


def test_missing_kvm_is_never_cached(measured):
    """No /dev/kvm now does not mean none in a minute."""
    measured += [HypervisorUnavailableError("no /dev/kvm: modprobe kvm"), GOOD]
    assert _host.choose("auto") == _host.HostChoice("emulated", "no /dev/kvm: modprobe kvm")
    assert _host.choose("auto").host == "kvm"
    measured.append(HypervisorUnavailableError("no /dev/kvm: modprobe kvm"))


def test_no_emulated_host(measured, monkeypatch):
    """Where guests run on /dev/kvm only, that is said with why it is not used."""
    monkeypatch.setattr(_host, "HAS_EMULATED_HOST", False)
    measured.append(SLOW)
    for wanted, why in (("auto", SLOW_SUMMARY), ("emulated", "asked for")):
        with pytest.raises(HostError) as caught:
            _host.choose(wanted)
        assert str(caught.value).startswith(f"--host emulated: {why}; on {HOST} guests run on /dev/kvm only")


def test_missing_kvm_asked_for(measured):
    """--host kvm without one is an error with the cure."""
    measured.append(HypervisorUnavailableError("no /dev/kvm: modprobe kvm"))
    with pytest.raises(HostError, match=r"^no /dev/kvm: modprobe kvm$"):
        _host.choose("kvm")


UNPRIVILEGED = """
import os, sys
import vmm_reference._host as host, vmm_reference._errors as errors
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.environ.pop("XDG_CACHE_HOME", None); os.environ["HOME"] = "/nonexistent"
print(host.choose("auto"))
try:
    host.choose("kvm")
except errors.HostError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not open /dev/kvm")
def test_a_user_who_may_not_open_kvm():
    """Without permission auto falls back and kvm is refused, both saying so, without any cache or home."""
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    auto, refused = done.stdout.splitlines()
    assert auto.startswith("HostChoice(host='emulated', why=")
    assert "/dev/kvm" in auto
    assert refused.startswith("refused: ")
    assert "/dev/kvm" in refused


@pytest.mark.kvm
def test_the_real_probe_is_cached(monkeypatch, tmp_path):
    """On this machine's KVM: measured, cached, and the same when read back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = _host.probe()
    assert first == _host.probe()
    cached = json.loads((tmp_path / "vmm" / "kvm-probe.json").read_text())
    assert cached["report"] == attrs.asdict(first)
