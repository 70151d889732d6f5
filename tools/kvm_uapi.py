"""Names and numbers of the newest linux/kvm.h, as committed data: tests need no network.

Usage: python tools/kvm_uapi.py   (part of `make kvm-coverage`; fetches the newest linux-libc-dev of Debian)
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from vmm_testhost.debian import fetch_package

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "packages/kvm-ioctls/tests/uapi.json"
ARCHES = ("x86_64", "aarch64", "riscv64")
SUITE = "trixie-backports"
PART_OF_AN_EXIT = re.compile(r"KVM_EXIT_(IO_|HYPERV_|XEN_HCALL|ARM_SEA_FLAG|HYPERCALL_)")


def names(header: str, kind: str) -> list[str]:
    """Names of one kind in the order of the header."""
    if kind == "ioctl":
        return re.findall(r"^#define (KVM_\w+)\s*\\?\s*_IO[WR]*\(KVMIO", header, flags=re.M)
    found = re.findall(rf"^#define (KVM_{kind}_\w+)\s+\d", header, flags=re.M)
    return [name for name in found if not PART_OF_AN_EXIT.match(name)]


def numbers(include: Path, arch: str, wanted: list[str]) -> dict[str, int]:
    """What a C compiler makes of each name; those whose struct the architecture lacks are left out."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch, "numbers.c"), Path(scratch, "numbers")
        command = [
            "gcc",
            "-ftrack-macro-expansion=0",
            f"-I{include}/{arch}-linux-gnu",
            f"-I{include}",
            "-o",
            str(program),
            str(source),
        ]
        known = list(wanted)
        while not program.exists():
            lines = [f'\tprintf("%s %lu\\n", "{name}", (unsigned long){name});' for name in known]
            source.write_text("#include <linux/kvm.h>\nint printf(const char *, ...);\nint main(void)\n{\n")
            with source.open("a") as file:
                file.write("\n".join([*lines, "}", ""]))
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            bad = {int(n) - 5 for n in re.findall(r"numbers\.c:(\d+):\d+: error", result.stderr)}
            if result.returncode and not bad:
                raise SystemExit(result.stderr)
            known = [name for i, name in enumerate(known) if i not in bad]
        output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in (line.split() for line in output.splitlines())}


def main() -> None:
    include = fetch_package("linux-libc-dev", suite=SUITE) / "usr/include"
    header = (include / "linux/kvm.h").read_text()
    version = re.findall(r"_(?:MAJOR|PATCHLEVEL|SUBLEVEL) (\d+)", (include / "linux/version.h").read_text())
    data: dict[str, object] = {"kernel": ".".join(version)}
    for key, kind in (("ioctls", "ioctl"), ("exits", "EXIT"), ("caps", "CAP")):
        wanted = names(header, kind)
        by_arch = {arch: numbers(include, arch, wanted) for arch in ARCHES}
        data[key] = {name: {a: by_arch[a][name] for a in ARCHES if name in by_arch[a]} for name in wanted}
        print(f"{key}: {len(wanted)}")
    DATA.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
