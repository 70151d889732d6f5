"""Our ABI headers against the kernels' own, for each architecture, read by C compilers."""

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
from kvm_ioctls import Cap, ExitReason, RiscvRegType, arm64_core_reg, riscv64_reg
from vmm_testhost import SetupError
from vmm_testhost.debian import fetch_package

SYSTEM = Path("/usr/include")
CSRC = Path(__file__).parents[1] / "csrc"
UAPI = json.loads(Path(__file__).with_name("uapi.json").read_text())
LISTS = {"x86_64": ("", "X86_"), "aarch64": ("", "ARM64_"), "riscv64": ("", "RISCV64_")}
OURS = "kvm_abi.h", "kvm_abi_x86.h", "kvm_abi_arm64.h", "kvm_abi_riscv64.h"
# Ours has plain members where the kernel's have anonymous unions of another name.
OTHER_FIELDS = {
    ("guest_debug", "debugreg"): "arch.debugreg",
    ("arm64_guest_debug", "dbg_bcr"): "arch.dbg_bcr",
    ("arm64_guest_debug", "dbg_bvr"): "arch.dbg_bvr",
    ("arm64_guest_debug", "dbg_wcr"): "arch.dbg_wcr",
    ("arm64_guest_debug", "dbg_wvr"): "arch.dbg_wvr",
}
OTHER_STRUCTS = {
    "arm64_debug_exit": "kvm_debug_exit_arch",
    "arm64_copy_mte_tags": "kvm_arm_copy_mte_tags",
    "arm64_counter_offset": "kvm_arm_counter_offset",
    "arm64_reg_mask_range": "reg_mask_range",
}
# Debian's suites: the machine's own (None), the next, testing, and that of the newest kernel to be had, whose
# header tools/kvm_uapi.py reads.
SUITES = (None, "trixie", "forky", "trixie-backports")
NEWEST = SUITES[-1]


@attrs.frozen
class Headers:
    """The uapi headers of one kernel version for one architecture."""

    include: Path
    arch: str

    @property
    def folders(self):
        return [self.include / f"{self.arch}-linux-gnu", self.include]

    def text(self):
        return "".join((folder / "kvm.h").read_text() for folder in (self.folders[0] / "asm", self._linux))

    @property
    def _linux(self):
        return self.include / "linux"

    def structs(self):
        """Names of the structs that these headers define."""
        return set(re.findall(r"^struct (\w+) \{", self.text(), flags=re.M))


def headers_of(suite, arch):
    """The headers of a Debian suite's kernel; skips where they cannot be had."""
    if suite is None:
        found = Headers(SYSTEM, arch)
    else:
        try:
            found = Headers(fetch_package("linux-libc-dev", suite=suite) / "usr/include", arch)
        except SetupError as err:
            pytest.skip(f"no headers of Debian {suite}: {err}")
    if not all((folder / "kvm.h").exists() for folder in (found.folders[0] / "asm", found.include / "linux")):
        pytest.skip(f"no {arch} headers in {found.include} (package linux-libc-dev)")
    return found


@functools.cache
def entries(kind, arch):
    """The entries of the X-macro lists that hold on `arch`, each a tuple of strings."""
    text = "".join((CSRC / name).read_text().replace("\\\n", " ") for name in OURS)
    found = []
    for prefix in LISTS[arch]:
        body = re.search(rf"#define KX_{prefix}{kind}\(\w\)(.*)", text).group(1)
        pattern = {
            "SIZES": r"S\((\w+), \d+\)",
            "FIELDS": r"F\((\w+), ([\w.]+), \d+\)",
            "IOCTLS": r"I\((\w+), KX_",
        }
        found += re.findall(pattern[kind], body)
    return found


def kernel_struct(name):
    """What the kernel calls one of our structs."""
    return OTHER_STRUCTS.get(name) or "kvm_" + re.sub(r"^(arm64|riscv64)_", "", name)


def assertions(headers):
    """C lines that hold if our header says what the kernel's says; structs it does not know are left out."""
    known = headers.structs()
    for name in entries("SIZES", headers.arch):
        if kernel_struct(name) in known:
            theirs = kernel_struct(name)
            yield f'_Static_assert(sizeof(struct {theirs}) == sizeof(struct kx_{name}), "{name}");'
    for name, field in entries("FIELDS", headers.arch):
        if kernel_struct(name) in known:
            theirs = OTHER_FIELDS.get((name, field), field)
            yield (
                f"_Static_assert(__builtin_offsetof(struct {kernel_struct(name)}, {theirs}) == "
                f'__builtin_offsetof(struct kx_{name}, {field}), "{name}.{field}");'
            )
    for name in entries("IOCTLS", headers.arch):
        theirs = "KVM_" + re.sub(r"^(ARM64|RISCV64)_", "", name)
        if re.search(rf"#define {theirs}\b", headers.text()):
            yield f'_Static_assert((unsigned){theirs} == (unsigned)KX_{name}, "{name}");'


def complaints(headers, lines, compiler, tmp_path):
    """Two sets of these lines of C: those with a field that the kernel does not know, and those that fail."""
    source = tmp_path / "check.c"
    text = ["#include <linux/kvm.h>", '#include "kvm_abi.h"', *lines, ""]
    source.write_text("\n".join(text))
    paths = [] if headers.include == SYSTEM else [f"-I{folder}" for folder in headers.folders]
    command = [compiler, "-std=gnu11", "-ffreestanding", *paths, f"-I{CSRC}", "-fsyntax-only", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    errors = re.findall(r"^(.*):(\d+):\d+: (?:fatal )?error: (.*)", result.stderr, flags=re.M)
    unknown = {
        number for file, number, message in errors if "no member named" in message and file == str(source)
    }
    failed = {f"{file}:{number}: {message}" for file, number, message in errors if number not in unknown}
    return {text[int(number) - 1] for number in unknown}, failed


COMPILERS = [
    pytest.param("gcc", "x86_64", id="gcc-x86_64"),
    # The host's compiler with the other's headers: the layout is in the types, not in the target.
    pytest.param("gcc", "aarch64", id="gcc-aarch64"),
    pytest.param("gcc", "riscv64", id="gcc-riscv64"),
    pytest.param("aarch64-linux-gnu-gcc", "aarch64", id="cross-aarch64"),
    pytest.param("riscv64-linux-gnu-gcc", "riscv64", id="cross-riscv64"),
]


@pytest.mark.parametrize("suite", SUITES[1:])
@pytest.mark.parametrize(("compiler", "arch"), COMPILERS)
def test_layout_and_numbers_are_the_kernels(suite, compiler, arch, tmp_path):
    """Sizes, offsets and ioctl numbers agree; only what a kernel is too old for may be missing there."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} (package gcc-{compiler.removesuffix('-gcc')})")
    headers = headers_of(suite, arch)
    lines = list(assertions(headers))

    unknown, failed = complaints(headers, lines, compiler, tmp_path)

    assert len(lines) > 200
    assert failed == set()
    assert unknown == set() or (suite != NEWEST and len(unknown) < 20)


def test_layout_and_numbers_are_the_systems(tmp_path):
    """The same for the header of this machine, however old."""
    headers = headers_of(None, "x86_64")
    lines = list(assertions(headers))

    unknown, failed = complaints(headers, lines, "gcc", tmp_path)

    assert (len(lines) > 400, failed) == (True, set())
    assert len(unknown) < 30


@pytest.mark.parametrize("arch", LISTS)
def test_newest_headers_know_every_struct(arch):
    """What the proof leaves out for an old kernel is in the newest one: no struct escapes it."""
    known = headers_of(NEWEST, arch).structs()

    assert [name for name in entries("SIZES", arch) if kernel_struct(name) not in known] == []


# Structs of the newest headers that are not ours, by the reason; those of registers are proven below.
WITHOUT = {
    "PowerPC's": r"kvm_(config_tlb|dirty_tlb|vfio_spapr_tce)",
    "s390's": r"kvm_(irq_routing_s390_adapter|s390_keyop)",
    "of an ioctl that only raw_ioctl makes": r"kvm_(arm_device_addr|cpuid|cpuid_entry|pit_state)",
    "opaque bytes of a struct whose size is proven": r"kvm_(pic|ioapic)_state|kvm_(vmx|svm)_nested_state_\w+",
    "the caller's bytes, behind a pointer": r"kvm_sev_(?!cmd$)\w+|kvm_tdx_(?!cmd$)\w+",
    "a member of kvm_run or kvm_guest_debug, proven there": r"kvm_(hyperv|xen)_exit|kvm_exit_snp_req_certs|"
    r"kvm_guest_debug_arch|kvm_debug_exit_arch",
    "has registers, which have ids": r"kvm_regs|kvm_riscv_\w+",
    "of timers without a GIC in the kernel": r"kvm_sync_regs",
}
EMPTY = {
    "x86_64": set(),
    "aarch64": {"kvm_sregs", "kvm_fpu"},
    "riscv64": {"kvm_regs", "kvm_sregs", "kvm_fpu", "kvm_sync_regs", "kvm_debug_exit_arch"},
}


@pytest.mark.parametrize("arch", LISTS)
def test_every_struct_of_the_newest_headers_is_ours_or_has_a_reason(arch, tmp_path):
    """Nothing that a newer kernel adds goes without a proof unseen; what is called empty is."""
    headers = headers_of(NEWEST, arch)
    ours = {kernel_struct(name) for name in entries("SIZES", arch)}
    theirs = headers.structs() - ours - EMPTY[arch]
    sizes = [f'_Static_assert(sizeof(struct {name}) == 0, "{name}");' for name in EMPTY[arch]]

    assert {name for name in theirs if not any(re.fullmatch(p, name) for p in WITHOUT.values())} == set()
    assert complaints(headers, sizes, "gcc", tmp_path) == (set(), set())


RISCV_CORE = (
    "pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
)
RISCV_FWFT = "misaligned_deleg pointer_masking pte_ad_hw_updating landing_pad shadow_stack"
# Struct, kind of register, subtype, the header's words for both, and the members in order.
RISCV_FILES = [
    (
        "config",
        RiscvRegType.CONFIG,
        0,
        "CONFIG",
        "isa zicbom_block_size mvendorid marchid mimpid zicboz_block_size satp_mode zicbop_block_size",
    ),
    (
        "core",
        RiscvRegType.CORE,
        0,
        "CORE",
        " ".join(f"regs.{name}" for name in RISCV_CORE.split()) + " mode",
    ),
    (
        "csr",
        RiscvRegType.CSR,
        0,
        "CSR CSR_GENERAL",
        "sstatus sie stvec sscratch sepc scause stval sip satp scounteren senvcfg",
    ),
    (
        "aia_csr",
        RiscvRegType.CSR,
        1,
        "CSR CSR_AIA",
        "siselect iprio1 iprio2 sieh siph iprio1h iprio2h",
    ),
    ("smstateen_csr", RiscvRegType.CSR, 2, "CSR CSR_SMSTATEEN", "sstateen0"),
    ("zicfiss_csr", RiscvRegType.CSR, 3, "CSR CSR_ZICFISS", "ssp"),
    ("timer", RiscvRegType.TIMER, 0, "TIMER", "frequency time compare state"),
    ("sbi_sta", RiscvRegType.SBI_STATE, 0, "SBI_STATE SBI_STA", "shmem_lo shmem_hi"),
    (
        "sbi_fwft",
        RiscvRegType.SBI_STATE,
        1,
        "SBI_STATE SBI_FWFT",
        " ".join(f"{name}.{part}" for name in RISCV_FWFT.split() for part in ("enable", "flags", "value")),
    ),
]


def riscv64_registers(headers):
    """C lines: ids of all members of the structs that these headers have, and the structs' sizes."""
    for name, kind, subtype, words, members in RISCV_FILES:
        struct = f"kvm_riscv_{name}"
        if struct not in headers.structs():
            continue
        file = " | ".join(f"KVM_REG_RISCV_{word}" for word in words.split())
        for index, member in enumerate(members.split()):
            number = f"__builtin_offsetof(struct {struct}, {member}) / 8"
            ours = riscv64_reg(kind, subtype << 16 | index)
            theirs = f"KVM_REG_RISCV | KVM_REG_SIZE_U64 | {file} | {number}"
            yield f'_Static_assert(({theirs}) == {ours}UL, "{member}");'
        if headers.include == headers_of(NEWEST, "riscv64").include:  # they grow with the kernel
            yield f'_Static_assert(sizeof(struct {struct}) == {8 * len(members.split())}, "{struct}");'


def arm64_registers(_headers):
    """C lines: ids of all members of struct kvm_regs, and its size."""
    members = [(f"regs.regs[{n}]", 8 * n, 8) for n in range(31)]
    members += [("regs.sp", 248, 8), ("regs.pc", 256, 8), ("regs.pstate", 264, 8)]
    members += [("sp_el1", 272, 8), ("elr_el1", 280, 8)]
    members += [(f"spsr[{n}]", 288 + 8 * n, 8) for n in range(5)]
    members += [(f"fp_regs.vregs[{n}]", 336 + 16 * n, 16) for n in range(32)]
    members += [("fp_regs.fpsr", 848, 4), ("fp_regs.fpcr", 852, 4)]
    for member, offset, size in members:
        file = f"KVM_REG_ARM64 | KVM_REG_SIZE_U{8 * size} | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG({member})"
        yield f'_Static_assert(({file}) == {arm64_core_reg(offset, size)}UL, "{member}");'
    yield '_Static_assert(sizeof(struct kvm_regs) == 864, "kvm_regs");'


@pytest.mark.parametrize("suite", SUITES[1:])
@pytest.mark.parametrize(
    ("compiler", "arch", "registers"),
    [
        ("gcc", "aarch64", arm64_registers),
        ("gcc", "riscv64", riscv64_registers),
        ("aarch64-linux-gnu-gcc", "aarch64", arm64_registers),
        ("riscv64-linux-gnu-gcc", "riscv64", riscv64_registers),
    ],
)
def test_ids_of_registers_are_the_headers(suite, compiler, arch, registers, tmp_path):
    """What arm64_core_reg and riscv64_reg make of a place is what the header makes of the member there."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} (package gcc-{compiler.removesuffix('-gcc')})")
    headers = headers_of(suite, arch)
    lines = list(registers(headers))

    unknown, failed = complaints(headers, lines, compiler, tmp_path)

    assert (len(lines) > 60, failed) == (True, set())
    assert unknown == set() or (suite != NEWEST and len(unknown) < 10)


def test_a_wrong_layout_is_found(tmp_path):
    """The proof fails when a size, an offset or a number differs."""
    headers = headers_of(None, "x86_64")
    wrong = [
        '_Static_assert(sizeof(struct kvm_regs) == sizeof(struct kx_sregs), "a size");',
        '_Static_assert(__builtin_offsetof(struct kvm_regs, rax) == 8, "an offset");',
        '_Static_assert((unsigned)KVM_GET_REGS == (unsigned)KX_SET_REGS, "a number");',
    ]

    unknown, failed = complaints(headers, wrong, "gcc", tmp_path)

    assert (unknown, len(failed)) == (set(), 3)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite or "system")
@pytest.mark.parametrize(("prefix", "enum"), [("KVM_CAP_", Cap), ("KVM_EXIT_", ExitReason)])
def test_enums_match_the_headers(suite, prefix, enum):
    """Capabilities and exit reasons have the header's numbers."""
    header = dict(re.findall(rf"#define {prefix}(\w+)\s+(\d+)", headers_of(suite, "x86_64").text()))
    shared = [member for member in enum if member.name in header]

    assert len(shared) >= 20
    assert {m.name: m.value for m in shared} == {m.name: int(header[m.name]) for m in shared}


NAMES = {
    "ioctls": r"(KVM_\w+) _IO[RW]*\(KVMIO",
    "exits": r"(KVM_EXIT_(?!IO_|HYPERV_|XEN_HCALL\b)\w+) \d+$",  # but for the kinds of one exit
    "caps": r"(KVM_CAP_\w+) \d+$",
}


def macros(headers):
    """All that the preprocessor knows after <linux/kvm.h>."""
    paths = [] if headers.include == SYSTEM else [f"-I{folder}" for folder in headers.folders]
    command = ["gcc", *paths, "-E", "-dM", "-include", "linux/kvm.h", "-"]
    return subprocess.run(command, input="", capture_output=True, text=True, check=True, timeout=240).stdout


@pytest.mark.parametrize("suite", SUITES[1:])
@pytest.mark.parametrize("arch", LISTS)
@pytest.mark.parametrize("kind", NAMES)
def test_no_header_knows_more_than_the_table(suite, arch, kind):
    """A kernel newer than docs/kvm-coverage.md is noticed: `make kvm-coverage` reads its header."""
    found = set(re.findall(rf"^#define {NAMES[kind]}", macros(headers_of(suite, arch)), flags=re.M))

    assert len(found) >= 35
    assert found - set(UAPI[kind]) == set()
