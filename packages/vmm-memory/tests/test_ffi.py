"""The fence around C: stub, declarations, error translation, sanitizer self-test."""

import errno
import re
from pathlib import Path

import pytest
import vmm_memory
from vmm_memory import MappingError
from vmm_memory._ffi import check, lib

PACKAGE = Path(vmm_memory.__file__).parent
CSRC = Path(__file__).parents[1] / "csrc"


def test_stub_and_cdef_agree():
    """Each function and constant of the cdef is in _core.pyi, and the reverse, with as many parameters."""
    cdef = (CSRC / "core.cdef.h").read_text()
    functions = {
        name: 0 if args == "void" else args.count(",") + 1
        for name, args in re.findall(r"^\w+ \**(\w+)\(([^)]*)\);", cdef, re.M)
    }
    constants = set(re.findall(r"^#define (\w+)", cdef, re.M))
    stub = (PACKAGE / "_core.pyi").read_text().partition("class Lib(Protocol):")[2]
    stubbed = {
        name: len(re.findall(r"\w+: ", args))
        for name, args in re.findall(r"def (\w+)\(\s*self,?([^)]*)\)", stub)
    }
    assert stubbed == functions
    assert set(re.findall(r"^    ([A-Z]\w+): int", stub, re.M)) == constants
    assert set(dir(lib)) == set(functions) | constants


def test_only_one_module_imports_the_core():
    """Everything else goes through _ffi."""
    importers = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"import.*\b_core\b|_core import", path.read_text())
    }
    assert importers == {"_ffi.py"}


def test_safety_comments():
    """Each cast, buffer and raw pointer in Python has its SAFETY comment close above."""
    risky = re.compile(r"ffi\.(cast|gc|buffer|from_buffer)\(|vmm_mem_discard\(")
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if risky.search(line):
                assert any("SAFETY:" in above for above in lines[max(0, number - 4) : number]), (
                    f"{path.name}:{number + 1}"
                )


def test_check_raises_with_errno():
    """-errno becomes a MappingError that is an OSError with that errno."""
    check(0, "nothing")
    with pytest.raises(MappingError, match="mmap of 5 bytes: Cannot allocate memory") as caught:
        check(-errno.ENOMEM, "mmap of 5 bytes")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOMEM


def test_overrun_selftest_is_off_in_a_plain_build():
    """Without sanitizers the deliberate overrun refuses; with them the root tests call it."""
    if "asan" in Path("/proc/self/maps").read_text():
        pytest.skip("sanitized interpreter: calling it would end the process")
    assert lib.vmm_mem_selftest_overrun() == -errno.ENOSYS
