"""The words in which `ordering` writes programs down, and what their order means."""

import enum
from collections.abc import Callable, Generator, Mapping

import attrs


class Model(enum.Enum):
    """What a machine may reorder."""

    SC = "SC"
    """Nothing: one access after the other, in the order of each program."""
    TSO = "TSO"
    """x86: each thread's stores wait in a first-in, first-out buffer, which it alone reads before they reach
    memory; fences and read-modify-writes empty it. Loads stay in order."""
    C11 = "C11"
    """What the C11 model lets compilers and weak processors (Arm, POWER, RISC-V) do with relaxed, acquire and
    release accesses and fences: a load may return any value that its thread has not seen overwritten, so
    stores and loads reorder freely, differently for each observer; read-modify-writes are atomic.
    Operationally: the views and messages of the promising semantics (Kang et al., POPL 2017) without
    promises; `Check` may in addition be performed after later stores of its thread, up to what orders it.
    Values do not come out of thin air."""


class Order(enum.Enum):
    """How an access or a fence orders others: the `memory_order_*` of C11 (consume left out)."""

    RELAXED = "relaxed"
    ACQUIRE = "acquire"
    RELEASE = "release"
    ACQ_REL = "acq_rel"
    SEQ_CST = "seq_cst"

    @property
    def acquires(self) -> bool:
        """Later accesses of the thread come after it."""
        return self in (Order.ACQUIRE, Order.ACQ_REL, Order.SEQ_CST)

    @property
    def releases(self) -> bool:
        """Earlier accesses of the thread come before it."""
        return self in (Order.RELEASE, Order.ACQ_REL, Order.SEQ_CST)


def _allowed(*orders: Order) -> Callable[[object, "attrs.Attribute[Order]", Order], None]:
    def check(_instance: object, _attribute: "attrs.Attribute[Order]", value: Order) -> None:
        if value not in orders:
            raise ValueError(f"order is {value.value}, must be one of {', '.join(o.value for o in orders)}")

    return check


def _shown(text: str, order: Order, name: str) -> str:
    words = [word for word in ("" if order is Order.RELAXED else order.value, name) if word]
    return f"{text} [{', '.join(words)}]" if words else text


@attrs.frozen
class Load:
    """Read a word; the program gets its value at once.

    Attributes:
        place: Name of the word.
        order: RELAXED or ACQUIRE.
        name: Ordering point, for `explore(without=…)`.
    """

    place: str
    order: Order = attrs.field(default=Order.RELAXED, validator=_allowed(Order.RELAXED, Order.ACQUIRE))
    name: str = ""

    def __str__(self) -> str:
        return _shown(f"load {self.place}", self.order, self.name)


@attrs.frozen
class Check:
    """Read a word that must have one value, now or as late as the model allows; the program gets 0.

    For payload: what is read has no influence on what the thread does next, so the machine is free to read it
    after later stores of the thread (to other places, up to a release, a fence, a bell).

    Attributes:
        place: Name of the word.
        expected: Any other value is a violation.
        what: Names it in the violation.
    """

    place: str
    expected: int
    what: str = ""

    def __str__(self) -> str:
        return f"check {self.place} == {self.expected}"


@attrs.frozen
class Store:
    """Write a word.

    Attributes:
        place: Name of the word.
        value: What is written.
        order: RELAXED or RELEASE.
        name: Ordering point, for `explore(without=…)`.
    """

    place: str
    value: int
    order: Order = attrs.field(default=Order.RELAXED, validator=_allowed(Order.RELAXED, Order.RELEASE))
    name: str = ""

    def __str__(self) -> str:
        return _shown(f"store {self.place} = {self.value}", self.order, self.name)


@attrs.frozen
class Add:
    """Add to a word in one atomic step; the program gets the value before.

    Attributes:
        place: Name of the word.
        value: What is added.
        order: RELAXED, ACQUIRE, RELEASE or ACQ_REL.
        name: Ordering point, for `explore(without=…)`.
    """

    place: str
    value: int
    order: Order = attrs.field(
        default=Order.ACQ_REL, validator=_allowed(Order.RELAXED, Order.ACQUIRE, Order.RELEASE, Order.ACQ_REL)
    )
    name: str = ""

    def __str__(self) -> str:
        return _shown(f"add {self.value} to {self.place}", self.order, self.name)


@attrs.frozen
class Fence:
    """Order what comes before it against what comes after it.

    Attributes:
        order: ACQUIRE, RELEASE, ACQ_REL or SEQ_CST, the only one that orders a store before a later load.
        name: Ordering point, for `explore(without=…)`.
    """

    order: Order = attrs.field(validator=_allowed(Order.ACQUIRE, Order.RELEASE, Order.ACQ_REL, Order.SEQ_CST))
    name: str = ""

    def __str__(self) -> str:
        return _shown("fence", self.order, self.name)


@attrs.frozen
class Notify:
    """Ring a bell, as one writes an eventfd: it stays rung until one sleeper has taken it.

    Orders as a release.
    """

    bell: str

    def __str__(self) -> str:
        return f"notify {self.bell}"


@attrs.frozen
class Sleep:
    """Wait until the bell has rung and take it, as one reads an eventfd. Orders as an acquire."""

    bell: str

    def __str__(self) -> str:
        return f"sleep until {self.bell}"


Operation = Load | Check | Store | Add | Fence | Notify | Sleep
"""What a thread of a scenario can do."""
Round = Generator[Operation, int, tuple[int, ...] | None]
"""One round of a program: yields operations, is sent their values, returns the arguments of its next round,
or None at its end. It must do the same again when it is sent the same: it is run many times, and depends on
nothing else."""


@attrs.frozen
class Thread:
    """One thread.

    Attributes:
        name: For traces.
        program: Called with `start`, then with what each round returns.
        start: Arguments of the first round.
        serves: It never ends, and may sleep when all others have ended.
    """

    name: str
    program: Callable[..., Round]
    start: tuple[int, ...] = ()
    serves: bool = False


@attrs.frozen
class Scenario:
    """Threads and the memory they share.

    Attributes:
        memory: Each word with what it holds at the beginning, visible to all.
        threads: At least one.
    """

    memory: Mapping[str, int]
    threads: tuple[Thread, ...]
