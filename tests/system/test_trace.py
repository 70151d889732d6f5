"""`--trace`: a booted Debian's exits, as many as the run loop has counted."""

from collections import Counter

import exits
from both_hosts import both_hosts
from kvm_ioctls import ExitReason
from vmm_reference import CpusConfig, EndReason


@both_hosts()
def test_a_boot_in_slices(boot, tmp_path, arch):
    """Balanced on each vCPU's track, in order, and the totals are those of the counters."""
    path = tmp_path / "boot.pftrace"
    with boot(jobs="vmm.report=1", modules=(), cpus=CpusConfig(2, 2), trace=path) as machine:
        assert machine.end().reason is EndReason.POWEROFF
        vmm = machine.vmm
    found = list(exits.slices(path))
    for vcpu in vmm.machine.vcpus:
        mine = [one for one in found if one.track == f"vcpu{vcpu.index}"]
        stats = vcpu.stats()
        expected = Counter({ExitReason(reason).name: count for reason, count in stats.exits.items()})
        expected += Counter(kick=stats.kicks, signal=stats.interrupted, wait=stats.waits)
        assert Counter(one.name for one in mine) == expected
        assert sum(one.category == "native" for one in mine) == stats.native
        times = [time for one in mine for time in (one.begin_ns, one.end_ns)]
        assert times == sorted(times)
    if arch == "x86_64":
        assert vmm.machine.vcpus[1].stats().waits >= 1  # it was started by a message
        assert {0x3F8, 0x600} <= {
            one.details["port"] for one in found if one.category == "exit" and one.name == "IO"
        }
    else:
        console = 0x900_0000  # the data register of the serial port
        assert console in {
            one.details["address"] for one in found if one.category == "exit" and one.name == "MMIO"
        }
    print("\n".join(exits.table(found, 40)))
