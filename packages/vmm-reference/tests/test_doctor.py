"""`vmm doctor`: measured facts in two formats, the same on a machine with and without KVM."""

import json

import pytest
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import KvmReport
from vmm_reference import _cli, _doctor

GOOD = KvmReport(0.4, 900.0, True, 254, {"IRQCHIP": 1, "NESTED_STATE": 0})
SLOW = KvmReport(320.0, 9000.0, False, 1024, {"IRQCHIP": 1})


@pytest.fixture
def kvm(monkeypatch):
    """A function that says what the measurement finds."""

    def found(result):
        def measure():
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(_doctor, "measure", measure)

    return found


def document(capsys):
    """Run `vmm doctor --format json`."""
    assert _cli.main(["doctor", "--format", "json"]) == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    return json.loads(streams.out)


def check(found):
    """Check the schema, and return the findings by name."""
    assert set(found) == {"findings", "runs"}
    assert set(found["runs"]) == {"stock kernels", "tiny guests"}
    assert set(found["runs"].values()) <= {"kvm", "emulated"}
    for finding in found["findings"]:
        assert set(finding) == {"name", "ok", "value", "cure"}
        assert isinstance(finding["name"], str)
        assert isinstance(finding["ok"], bool)
        assert isinstance(finding["cure"], str)
        assert isinstance(finding["value"], str | int | float)
    names = [finding["name"] for finding in found["findings"]]
    assert len(names) == len(set(names))
    assert {"kvm", "tap", "hugepages", "qemu"} <= set(names)
    return {finding["name"]: finding for finding in found["findings"]}


def test_complete_kvm(kvm, capsys):
    """Everything runs here."""
    kvm(GOOD)
    found = document(capsys)
    by_name = check(found)
    assert found["runs"] == {"stock kernels": "kvm", "tiny guests": "kvm"}
    assert (by_name["ring0"]["value"], by_name["ring0"]["cure"]) == ("native", "")
    assert by_name["cap_nested_state"] == {"name": "cap_nested_state", "ok": False, "value": 0, "cure": ""}


def test_interpreting_kvm(kvm, capsys):
    """Tiny guests run here, kernels do not, and it says why."""
    kvm(SLOW)
    found = document(capsys)
    by_name = check(found)
    assert found["runs"] == {"stock kernels": "emulated", "tiny guests": "kvm"}
    assert by_name["ring0"]["value"] == "interpreted"
    assert "emulated host" in by_name["ring0"]["cure"]
    assert "emulated host" in by_name["cpuid"]["cure"]


def test_no_kvm(kvm, capsys):
    """Without KVM everything goes to the emulated host; the reason is the finding."""
    kvm(HypervisorUnavailableError("/dev/kvm is missing: modprobe kvm"))
    found = document(capsys)
    assert check(found)["kvm"]["value"] == "/dev/kvm is missing: modprobe kvm"
    assert found["runs"] == {"stock kernels": "emulated", "tiny guests": "emulated"}


def test_text_says_the_same(kvm, capsys):
    """Every finding is in the text, with its cure below it."""
    kvm(SLOW)
    by_name = check(document(capsys))
    assert _cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for name, finding in by_name.items():
        assert f"{'ok  ' if finding['ok'] else 'note'} {name}" in text
        assert finding["cure"] in text
    assert text.endswith("tiny guests will run here: --host kvm\n")


@pytest.mark.kvm
def test_this_machine(capsys):
    """The real measurement has the same shape."""
    by_name = check(document(capsys))
    assert by_name["ns_per_exit"]["value"] > 0
