"""Every public call with whatever numbers: the kernel's answer or an error of this package, nothing else.

The objects are real, but for what is behind their descriptor: a file, whose answer to every ioctl is ENOTTY.
The methods of all architectures are called, whichever this one is.
"""

import inspect
import os
import re

import attrs
import kvm_ioctls
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kvm_ioctls import DeviceFd, Kvm, KvmError, VcpuFd, VmFd
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._wire import Wire

WIDTHS = (0, 8, 16, 31, 32, 63, 64, 70)
EDGES = [sign * (1 << bits) + step for bits in WIDTHS for step in (-1, 0, 1) for sign in (1, -1)]
NUMBERS = st.sampled_from(EDGES) | st.integers()
PUBLIC = {name: getattr(kvm_ioctls, name) for name in kvm_ioctls.__all__}
WIRES = {name: kind for name, kind in PUBLIC.items() if inspect.isclass(kind) and issubclass(kind, Wire)}
RUN_PAGE = 3 * os.sysconf("SC_PAGE_SIZE")


def wires(kind):
    """Objects of a Wire class, whose numbers may not fit."""

    def value(field):
        default = field.default
        if isinstance(default, attrs.Factory):
            return wires(default.factory)
        if isinstance(default, tuple):
            return st.lists(NUMBERS, min_size=len(default), max_size=len(default)).map(tuple)
        return st.binary(max_size=8) | st.just(default) if isinstance(default, bytes) else NUMBERS

    return st.builds(kind, **{field.name: value(field) for field in attrs.fields(kind)})


ROUTES = st.builds(kvm_ioctls.IrqchipRoute, NUMBERS, NUMBERS, NUMBERS) | st.builds(
    kvm_ioctls.MsiRoute, NUMBERS, NUMBERS, NUMBERS, st.none() | NUMBERS
)
FILTERS = st.builds(
    kvm_ioctls.PmuEventFilter, st.lists(NUMBERS).map(tuple), st.booleans(), NUMBERS, st.booleans()
)
SYNC = (wires(WIRES[name]) for name in ("Regs", "Sregs", "VcpuEvents"))
BY_ANNOTATION = {
    "bool": st.booleans(),
    "bytes": st.binary(max_size=600),
    "bytes | bytearray | memoryview": st.binary(max_size=600),
    "bytearray | int": NUMBERS | st.builds(bytearray, st.binary(max_size=600)),
    "int": NUMBERS,
    "int | None": st.none() | NUMBERS,
    "Iterable[int]": st.lists(NUMBERS),
    "Sequence[int]": st.lists(NUMBERS),
    "tuple[int, ...]": st.lists(NUMBERS).map(tuple),
    "Iterable[int] | None": st.none() | st.lists(NUMBERS),
    "Iterable[IrqRoute]": st.lists(ROUTES, max_size=3),
    "PmuEventFilter": FILTERS,
    "MpState": NUMBERS,
    "Literal['pio', 'mmio']": st.sampled_from(["pio", "mmio"]),
    "SyncRegs": st.builds(kvm_ioctls.SyncRegs, *SYNC),
    **{name: wires(kind) for name, kind in WIRES.items()},
    **{f"Iterable[{name}]": st.lists(wires(WIRES[name]), max_size=2) for name in ("CpuidEntry", "MsrEntry")},
    "Sequence[Xcr]": st.lists(wires(WIRES["Xcr"]), max_size=2),
}
# Not what files answer too, nor what would change this very thread.
FOREIGN = NUMBERS.filter(lambda number: not 0 <= number < 1 << 32 or number >> 8 & 0xFF == 0xAE)
NOBODY = NUMBERS.filter(lambda thread: not 0 <= thread < 1 << 30)
BY_NAME = {
    "raw_ioctl.number": FOREIGN,
    "core_cookie.thread": NOBODY,
    "share_core.thread": NOBODY,
}


def arguments(call):
    """A strategy for each parameter of a call; others with a default, and no number, are left out."""
    found = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if name in {"self", "cls"}:
            continue
        annotation = re.sub(r"^\w+ \| int$", "int", str(parameter.annotation).replace("kvm.", ""))
        strategy = BY_NAME.get(f"{call.__name__}.{name}", BY_ANNOTATION.get(annotation))
        if strategy is not None:
            found[name] = strategy
        elif parameter.default is parameter.empty or "int" in annotation:
            raise LookupError(f"{call.__qualname__}: {name}: {parameter.annotation}")
    return found


def methods(kind):
    """Public methods of a class with parameters, those of other architectures as they are there."""
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if not name.startswith("_") and inspect.isfunction(method):
            original = inspect.unwrap(method)
            if set(inspect.signature(original).parameters) - {"self"}:
                yield original


FUNCTIONS = [call for call in PUBLIC.values() if inspect.isfunction(call) and set(arguments(call))]
METHODS = [(kind, method) for kind in (DeviceFd, Kvm, VcpuFd, VmFd) for method in methods(kind)]
MADE = [
    kind
    for name, kind in PUBLIC.items()
    if name in {"Constant", "Counter", "Latch", "MsrFilterRange", "NativeRange", "Ring"}
]
# They take what no strategy makes: functions, other objects. Their numbers have tests of their own.
ELSEWHERE = {"run", "run_raw", "complete_pending", "trace_exits", "set_msr_filter"}


@pytest.fixture(scope="module")
def objects():
    """One of each kind on a file of its own."""

    def file():
        fd = os.memfd_create("no-kvm", os.MFD_CLOEXEC)
        os.ftruncate(fd, 2 << 20)  # any ring can be mapped
        return fd

    kvm = Kvm.__new__(Kvm)
    OwnedFd.__init__(kvm, file(), "no KVM")
    with (
        kvm,
        VmFd(file(), RUN_PAGE) as vm,
        VcpuFd(file(), 0, RUN_PAGE, 0, 0) as vcpu,
        DeviceFd(file(), "no device") as device,
    ):
        yield {type(one): one for one in (kvm, vm, vcpu, device)}


def refuses_well(call, *args, allowed=(), **kwargs):
    """Whatever happens is of the kinds that the package promises; a refused number is shown."""
    try:
        return call(*args, **kwargs)
    except ValueError as error:
        shown = re.search(r"\d", str(error))
        if shown is None:
            raise
    except (KvmError, *allowed):
        pass
    return None


@pytest.mark.parametrize(
    ("kind", "method"),
    [pair for pair in METHODS if pair[1].__name__ not in ELSEWHERE],
    ids=lambda part: part.__name__,
)
@given(data=st.data())
def test_methods(objects, kind, method, data):
    """Of what owns a descriptor."""
    drawn = data.draw(st.fixed_dictionaries(arguments(method)))
    refuses_well(method, objects[kind], allowed=[OSError] * method.__name__.startswith("map_"), **drawn)


@pytest.mark.parametrize("call", [*FUNCTIONS, *MADE], ids=lambda call: call.__name__)
@given(data=st.data())
def test_functions_and_values(call, data):
    """Of what owns none."""
    refuses_well(call, **data.draw(st.fixed_dictionaries(arguments(call))))


@pytest.mark.parametrize("kind", WIRES.values(), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_state(kind, data):
    """What fits is packed whole, and nothing is cut or filled up; any offset is safe."""
    made = data.draw(wires(kind))
    packed = refuses_well(made.pack)
    if packed is not None:
        assert kind.unpack(packed) == made
    refuses_well(kind.unpack, data.draw(st.binary(max_size=600)), data.draw(NUMBERS))


@given(ROUTES | FILTERS)
@example(kvm_ioctls.MsiRoute(0, 1 << 64, 0))
def test_what_ioctls_take(value):
    """Routes and filters, each by itself."""
    refuses_well(value.pack)


@given(NUMBERS)
@example(-1)
@example(1 << 64)
def test_cells(number):
    """A counter or latch takes what 64 bits hold, and shows what they do not."""
    cell = kvm_ioctls.Counter()
    if 0 <= number < 1 << 64:
        cell.value = number
        assert cell.value == number
    else:
        with pytest.raises(ValueError, match=rf"^value={number:#x} is not in 0\.\.0xffffffffffffffff$"):
            cell.value = number
        assert cell.value == 0
