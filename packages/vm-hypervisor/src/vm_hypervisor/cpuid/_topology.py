"""How many threads, cores, dies and sockets, and the APIC ids that say so."""

from typing import Final

import attrs
from vm_device import Value

from vm_hypervisor._errors import CpuidError

__all__ = ("Topology",)

_MOST: Final = 1 << 16  # of each; what leaf 0xB can count


@attrs.frozen(eq=False, repr=False)
class Topology(Value):
    """How the processors of a machine are grouped.

    Processor `index` counts threads first, then cores, dies, sockets. Its APIC id has a field of whole bits
    for each level (SDM 3A, 9.9.1), so ids have holes where a count is no power of two.

    Args:
        threads: of each core, 1 … 65536, as the others.
        cores: of each die.
        dies: of each socket.
        sockets: of the machine.

    Raises:
        CpuidError: a count is out of range, or an APIC id would not fit 32 bits.
    """

    threads: int = 1
    cores: int = 1
    dies: int = 1
    sockets: int = 1

    def __attrs_post_init__(self) -> None:
        for name, count in attrs.asdict(self).items():
            if not 1 <= count <= _MOST:
                raise CpuidError(f"topology {name}: {count} is not within 1 … {_MOST}")
        if self.last_apic_id >= 0xFFFF_FFFF:
            raise CpuidError(f"topology {self}: APIC id {self.last_apic_id:#x} has more than 32 bits")

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """Read "THREADS:CORES:DIES:SOCKETS", such as "2:4:1:1".

        Raises:
            CpuidError: not four numbers, or one is out of range.
        """
        words = text.split(":")
        if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) <= 6 for word in words):
            raise CpuidError(
                f"topology {text!r} is not THREADS:CORES:DIES:SOCKETS "
                "(threads of a core, cores of a die, dies of a socket, sockets), such as 2:4:1:1"
            )
        return cls(*map(int, words))

    def __str__(self) -> str:
        return f"{self.threads}:{self.cores}:{self.dies}:{self.sockets}"

    @property
    def cpus(self) -> int:
        """Processors of the machine."""
        return self.threads * self.cores * self.dies * self.sockets

    @property
    def core_shift(self) -> int:
        """Low bits of the APIC id that number the threads of a core."""
        return (self.threads - 1).bit_length()

    @property
    def die_shift(self) -> int:
        """Low bits of the APIC id that number the threads of a die."""
        return self.core_shift + (self.cores - 1).bit_length()

    @property
    def socket_shift(self) -> int:
        """Low bits of the APIC id that number the threads of a socket."""
        return self.die_shift + (self.dies - 1).bit_length()

    @property
    def last_apic_id(self) -> int:
        """The highest APIC id in use."""
        return self.apic_id(self.cpus - 1)

    def apic_id(self, index: int) -> int:
        """Return the APIC id of a processor.

        Raises:
            CpuidError: there is no such processor.
        """
        socket, die, core, thread = self.place(index)
        return socket << self.socket_shift | die << self.die_shift | core << self.core_shift | thread

    def place(self, index: int) -> tuple[int, int, int, int]:
        """Return socket, die, core and thread of a processor, each counted from 0 within the one before.

        Raises:
            CpuidError: there is no such processor.
        """
        if not 0 <= index < self.cpus:
            raise CpuidError(f"processor {index} is not within 0 … {self.cpus - 1} of topology {self}")
        core, thread = divmod(index, self.threads)
        die, core = divmod(core, self.cores)
        socket, die = divmod(die, self.dies)
        return socket, die, core, thread
