"""A few A64 instructions for tiny guests, by their encodings in the Arm ARM (DDI 0487, C6.2)."""

from linux_loader.testing import build_image

PSCI_CPU_ON, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET = 0xC400_0003, 0x8400_0008, 0x8400_0009
ICC_PMR_EL1, ICC_IAR1_EL1, ICC_EOIR1_EL1, ICC_IGRPEN1_EL1 = (
    *((3, 0, 4, 6, 0), (3, 0, 12, 12, 0)),
    *((3, 0, 12, 12, 1), (3, 0, 12, 12, 7)),
)


class Code:
    """Instructions one after the other; each method appends and returns the code itself."""

    def __init__(self) -> None:
        self._words: list[int] = []

    def __bytes__(self) -> bytes:
        return b"".join(word.to_bytes(4, "little") for word in self._words)

    def __len__(self) -> int:
        """Return how many instructions there are so far."""
        return len(self._words)

    def word(self, value: int) -> "Code":
        """Append an instruction by its encoding."""
        self._words.append(value)
        return self

    def move(self, register: int, value: int) -> "Code":
        """X[register] = value (MOVZ, MOVK)."""
        self.word(0xD280_0000 | (value & 0xFFFF) << 5 | register)
        for shift in (16, 32, 48):
            if part := value >> shift & 0xFFFF:
                self.word(0xF280_0000 | shift // 16 << 21 | part << 5 | register)
        return self

    def load(self, register: int, base: int, size: int = 4) -> "Code":
        """Load `size` bytes from [X[base]], zero-extended (LDR, LDRB, LDRH)."""
        return self.word(0x3940_0000 | (size.bit_length() - 1) << 30 | base << 5 | register)

    def store(self, register: int, base: int, size: int = 4) -> "Code":
        """Store `size` bytes to [X[base]] (STR, STRB, STRH)."""
        return self.word(0x3900_0000 | (size.bit_length() - 1) << 30 | base << 5 | register)

    def poke(self, address: int, value: int, size: int = 4) -> "Code":
        """Store a number at an address; X9 and X10 are lost."""
        return self.move(9, address).move(10, value).store(10, 9, size)

    def add(self, register: int, value: int) -> "Code":
        """X[register] += value, 0 to 4095."""
        return self.word(0x9100_0000 | value << 10 | register << 5 | register)

    def mrs(self, register: int, system: tuple[int, int, int, int, int]) -> "Code":
        """Read a system register."""
        return self.word(0xD530_0000 | _system(system) | register)

    def msr(self, system: tuple[int, int, int, int, int], register: int) -> "Code":
        """Write a system register."""
        return self.word(0xD510_0000 | _system(system) | register)

    def isb(self) -> "Code":
        """Wait until system registers are as written."""
        return self.word(0xD503_3FDF)

    def wfi(self) -> "Code":
        """Wait for an interrupt, which may be masked."""
        return self.word(0xD503_207F)

    def hvc(self) -> "Code":
        """Call the hypervisor: function in X0."""
        return self.word(0xD400_0002)

    def jump(self, place: int) -> "Code":
        """Branch to the instruction number `place`."""
        return self.word(0x1400_0000 | (place - len(self)) & 0x3FF_FFFF)


def image(code: bytes) -> bytes:
    """Return an Image that does nothing but `code`, which has to be position-independent."""
    built = build_image("aarch64", code)
    header = len(built) - len(code)
    return bytes(Code().jump(header // 4)) + built[4:]


def _system(register: tuple[int, int, int, int, int]) -> int:
    op0, op1, crn, crm, op2 = register
    return (op0 - 2) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
