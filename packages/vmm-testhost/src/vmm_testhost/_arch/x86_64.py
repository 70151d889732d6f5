"""The x86 host: this machine's own programs run in it."""

import sys
from pathlib import Path

from vmm_testhost._apt import TOOLS
from vmm_testhost._arch.base import Architecture, Host
from vmm_testhost._initramfs import find_busybox
from vmm_testhost._kernel import host_kernel

# TCG lets a guest's XSETBV pass without the exit that KVM asked for. KVM then tells the guest a wrong XSAVE
# size, at which a kernel turns XSAVE off or (7.3) dies, and puts XCR0 back at each entry, at which signal
# frames and vector registers would get lost. A CPU without XSAVE saves by FXSAVE, and all is well.
NO_XSAVE = "-xsave,-xsaveopt,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-pku,-mpx"


def find_host() -> Host:
    """Return what a launch needs, fetched where it is missing."""
    kernel = host_kernel()
    return Host(kernel, kernel.vmlinux(), find_busybox(), str(Path(sys.executable).resolve()))


ARCHITECTURE = Architecture(
    name="x86_64",
    qemu="qemu-system-x86_64",
    tools=TOOLS,
    # -cpu max beats every named model; its SVM (with NPT) is what makes kvm_amd complete.
    machine=f"-M q35 -accel tcg,tb-size=512,thread=multi -cpu max,{NO_XSAVE}",
    cmdline="console=ttyS0 panic=-1 oops=panic mitigations=off nokaslr no_timer_check tsc=reliable "
    "random.trust_cpu=on loglevel=4",
    modules=("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "kvm-amd"),
    find_host=find_host,
)
