"""Our ABI header against the kernel header of this machine, as far as that one knows."""

import re
import subprocess
from pathlib import Path

import pytest
from kvm_ioctls import Cap, ExitReason

CSRC = Path(__file__).parents[1] / "csrc"
SYSTEM = Path("/usr/include/linux/kvm.h")
# Ours has a plain member where the kernel's has an anonymous union of another name.
OTHER_NAMES = {("guest_debug", "debugreg"): "arch.debugreg"}
# Structs whose kernel form ends in a flexible array member.
needs_header = pytest.mark.skipif(not SYSTEM.exists(), reason="no <linux/kvm.h> (package linux-libc-dev)")


def _macro(name):
    text = (CSRC / "kvm_abi.h").read_text().replace("\\\n", " ")
    return re.search(rf"#define {name}\(\w\)(.*)", text).group(1)


def _compile_check(tmp_path, body):
    source = tmp_path / "check.c"
    source.write_text(
        f'#include <linux/kvm.h>\n#include "kvm_abi.h"\n{body}\nint main(void) {{ return 0; }}\n'
    )
    command = ["gcc", "-std=gnu11", "-Werror", f"-I{CSRC}", "-fsyntax-only", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@needs_header
def test_sizes_match_the_system_header(tmp_path):
    """Each struct that the system header knows has the same size there."""
    known = set(re.findall(r"^struct kvm_(\w+) \{", SYSTEM.read_text() + _asm_header(), flags=re.M))
    sizes = [name for name, _ in re.findall(r"S\((\w+), (\d+)\)", _macro("KX_SIZES")) if name in known]

    assert len(sizes) > 35
    _compile_check(
        tmp_path,
        "\n".join(f'_Static_assert(sizeof(struct kvm_{n}) == sizeof(struct kx_{n}), "{n}");' for n in sizes),
    )


def _asm_header():
    return Path("/usr/include/x86_64-linux-gnu/asm/kvm.h").read_text()


@needs_header
def test_offsets_match_the_system_header(tmp_path):
    """Each field lies where the system header puts it."""
    known = set(re.findall(r"^struct kvm_(\w+) \{", SYSTEM.read_text() + _asm_header(), flags=re.M))
    fields = [
        (s, f) for s, f, _ in re.findall(r"F\((\w+), ([\w.]+), (\d+)\)", _macro("KX_FIELDS")) if s in known
    ]

    assert len(fields) > 200
    _compile_check(
        tmp_path,
        "\n".join(
            f"_Static_assert(offsetof(struct kvm_{s}, {OTHER_NAMES.get((s, f), f)}) == "
            f'offsetof(struct kx_{s}, {f}), "{s}.{f}");'
            for s, f in fields
        ),
    )


@needs_header
def test_ioctl_numbers_match_the_system_header(tmp_path):
    """Each ioctl that the system header knows has the same number there."""
    names = re.findall(r"I\((\w+), KX_", _macro("KX_IOCTLS"))
    checks = [
        f'#ifdef KVM_{n}\n_Static_assert((unsigned)KVM_{n} == (unsigned)KX_{n}, "{n}");\n#endif'
        for n in names
    ]

    assert len(checks) > 60
    _compile_check(tmp_path, "\n".join(checks))


@needs_header
@pytest.mark.parametrize(("prefix", "enum"), [("KVM_CAP_", Cap), ("KVM_EXIT_", ExitReason)])
def test_enums_match_the_system_header(prefix, enum):
    """Capabilities and exit reasons have the header's numbers."""
    header = dict(re.findall(rf"#define {prefix}(\w+)\s+(\d+)", SYSTEM.read_text()))
    shared = [member for member in enum if member.name in header]

    assert len(shared) >= 20
    assert {m.name: m.value for m in shared} == {m.name: int(header[m.name]) for m in shared}
