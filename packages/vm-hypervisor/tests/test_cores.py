"""With whom vCPU threads share a core, on this kernel or with its part played in front of it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import kvm_ioctls
import pytest
from vm_hypervisor import CoreScheduling, CoreSharing, UnsupportedFeatureError

SCRIPT = """
import sys, threading
from kvm_ioctls import core_cookie
from vm_hypervisor import CoreScheduling, CoreSharing, VcpuManager
from vm_hypervisor.testing import RecordingOps, SoftVcpu

cookies = {}

def machine(mode):
    sharing, ready = CoreSharing(mode), threading.Barrier(3)
    def guest():
        cookies.setdefault(mode, []).append(core_cookie())
        ready.wait(60)
        return
        yield
    vcpus = [SoftVcpu(index, guest) for index in range(3)]
    manager = VcpuManager(vcpus, lambda _: RecordingOps(), lambda stop: None, on_thread_start=sharing.join)
    manager.start()
    for thread in manager._threads:
        thread.join()

for word in sys.argv[1:]:
    machine(CoreScheduling(word))
    print(word, *sorted(cookies.pop(CoreScheduling(word))))
print("main", core_cookie())
"""


def test_off_asks_nothing_of_the_kernel():
    """Whatever the kernel has, a machine without core scheduling starts."""
    CoreSharing(CoreScheduling.OFF).join()


def test_a_kernel_without_is_named():
    """The machine is refused before it exists, unless the kernel can, or there is no SMT."""
    try:
        kvm_ioctls.core_cookie()
    except kvm_ioctls.KvmOSError as error:
        if error.errno == errno.EINVAL:
            with pytest.raises(UnsupportedFeatureError, match=r"^core scheduling: .* CONFIG_SCHED_CORE"):
                CoreSharing(CoreScheduling.VM)
            return
    CoreSharing(CoreScheduling.VM)


def test_vcpus_share_a_cookie_or_have_one_each(tmp_path):
    """vm: one for all three threads; vcpu: three; off: none; the main thread never has one."""
    shim = tmp_path / "cookies.so"
    source = Path(__file__).with_name("core_cookies.c")
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", "-o", shim, source], check=True
    )
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    command = [sys.executable, "-c", SCRIPT, "vm", "vcpu", "off", "vm"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["vm 1 1 1", "vcpu 2 3 4", "off 0 0 0", "vm 5 5 5", "main 0"]
