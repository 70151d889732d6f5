"""The processors of a machine: how many, grouped how, showing what, on which threads of the host."""

import enum
from collections.abc import Mapping
from pathlib import Path

import attrs
from vm_device import Value
from vm_hypervisor import cpuid  # whose names load when they are used

from vmm_reference._errors import ConfigError
from vmm_reference._grammar import Options, parse_affinity, parse_count, parse_word

MAX_VCPUS = 254
HOST_TEMPLATE = "host"  # the template that changes nothing

CPUS_KEYS = {
    "boot": "vCPUs at boot",
    "max": "most vCPUs ever (equal to boot until CPUs can be hotplugged)",
    "topology": "threads of a core, cores of a die, dies of a socket, sockets: 2:4:1:1",
    "template": "what guests see of the processor: host (default), t2, or a file; `vmm cpuid templates`",
    "affinity": "host CPUs a vCPU may run on, [0@[1],1@[2-3]]",
    "core_scheduling": "who may run beside a vCPU on a host core: off (anybody, default), vm, vcpu (nobody)",
}


def _topology(text: str) -> "cpuid.Topology":
    return cpuid.Topology.parse(text)  # loaded only for who gives one


class CoreScheduling(enum.Enum):
    """Who may run beside a vCPU on a core of the host: anybody, the machine's vCPUs, nobody."""

    OFF = "off"
    VM = "vm"
    VCPU = "vcpu"


@attrs.frozen(eq=False, repr=False)
class CpusConfig(Value):
    """Virtual CPUs.

    Args:
        boot: how many, 1 … 254.
        max: the same.
        affinity: vCPU → host CPUs that it is pinned to.
        topology: how they are grouped; None makes them cores of one socket.
        core_scheduling: who may run beside a vCPU on a core of the host.
        template: a name of `vm_hypervisor.cpuid.BUILT_IN`, or the path of a file.

    Raises:
        ConfigError: a number is out of range, or two of them contradict each other.
    """

    boot: int = 1
    max: int = 1
    affinity: Mapping[int, frozenset[int]] = attrs.field(factory=dict)
    topology: "cpuid.Topology | None" = None
    template: str = HOST_TEMPLATE
    core_scheduling: CoreScheduling = CoreScheduling.OFF

    @classmethod
    def parse(cls, text: str) -> "CpusConfig":
        """Read "boot=4,topology=2:2:1:1"; `boot` may be left to the topology. Raises `ConfigError`."""
        options = Options("--cpus", text)
        topology = options.take("topology", _topology, None)
        boot = options.take("boot", parse_count, 1 if topology is None else topology.cpus)
        config = cls(
            boot,
            options.take("max", parse_count, boot),
            options.take("affinity", parse_affinity, {}),
            topology,
            options.take("template", str, HOST_TEMPLATE),
            options.take("core_scheduling", parse_word(CoreScheduling), CoreScheduling.OFF),
        )
        options.finish(CPUS_KEYS)
        return config

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.boot <= MAX_VCPUS:
            raise ConfigError("--cpus boot", f"{self.boot} is not within 1 … {MAX_VCPUS}")
        if self.max != self.boot:
            raise ConfigError(
                "--cpus max", f"{self.max} differs from boot={self.boot}; CPUs cannot be hotplugged yet"
            )
        for vcpu in self.affinity:
            if vcpu >= self.boot:
                raise ConfigError("--cpus affinity", f"vCPU {vcpu} does not exist; boot={self.boot}")
        if not self.template:
            raise ConfigError("--cpus template", "it is empty; give host, t2 or a file")
        if self.topology is not None and self.topology.cpus != self.boot:
            raise ConfigError(
                "--cpus topology",
                f"{self.topology} is {self.topology.cpus} vCPUs, boot={self.boot}; make them equal",
            )

    @property
    def template_file(self) -> Path | None:
        """The file that the template comes from; None of a built-in one."""
        is_path = "/" in self.template or self.template.endswith(".toml")
        return Path(self.template) if is_path else None
