"""The real arm64 host, launched twice."""

import os
import signal
import subprocess
import sys

import pytest
import vmm_testhost
from vmm_testhost._apt import missing_tools
from vmm_testhost._arch import ARCHITECTURES

LAUNCH = 150  # seconds; a launch takes 10, several times that on a machine with other work
MISSING = [] if os.geteuid() == 0 else missing_tools(ARCHITECTURES["aarch64"].tools)

pytestmark = [
    pytest.mark.testhost,
    pytest.mark.skipif(bool(MISSING), reason=f"sudo apt-get install {' '.join(MISSING)}"),
]

INSIDE = r"""
import fcntl, os, platform, sys
import _cffi_backend, attr
kvm = os.open("/dev/kvm", os.O_RDWR)
vm = fcntl.ioctl(kvm, 0xAE01, 0)
vcpu = fcntl.ioctl(vm, 0xAE41, 0)  # KVM_CREATE_VCPU
target = bytearray(32)
fcntl.ioctl(vm, 0x8020AEAF, target)  # KVM_ARM_PREFERRED_TARGET
fcntl.ioctl(vcpu, 0x4020AEAE, bytes(target))  # KVM_ARM_VCPU_INIT
assert os.getuid() == 0 and os.environ["VMM_TESTHOST"] == "1"
open(sys.argv[1] + "/made", "w").write(open(sys.argv[2]).read())
data = sys.stdin.buffer.read()
sys.stderr.write(f"{platform.machine()} {sys.version_info[:2]}"); sys.stderr.flush()
sys.stdout.buffer.write(data[::-1] + os.getcwd().encode()); sys.stdout.flush()
sys.exit(3)
"""


def test_everything_passes_through(tmp_path):
    """An arm64 CPython with a KVM, our files at their paths; streams, status and results come back."""
    results, own = tmp_path / "results", tmp_path / "own"
    own.write_text("seen")
    sent = bytes(range(256)) * 100
    result = vmm_testhost.run(
        ["python3", "-c", INSIDE, results, own],
        arch="aarch64",
        cwd=tmp_path,
        results=results,
        stdin=sent,
        capture=True,
        timeout=LAUNCH,
    )
    assert (result.stderr, result.returncode) == (b"aarch64 (3, 11)", 3)
    assert result.stdout == sent[::-1] + str(tmp_path).encode()
    assert (results / "made").read_text() == "seen"


def test_ctrl_c_reaches_the_command():
    """An interrupt is the command's; its status is what a shell would say."""
    program = "trap 'echo got it; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    argv = [sys.executable, "-m", "vmm_testhost", "--arch", "aarch64", "--no-tty", "--timeout", str(LAUNCH)]
    with subprocess.Popen([*argv, "--", "sh", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"got it\n"
        assert process.wait() == 7
