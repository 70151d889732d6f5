"""Build the abi3 C core; metadata lives in pyproject.toml."""

import os
from pathlib import Path

from setuptools import Extension, setup

SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g",
    "-O1",
    "-DVMM_SANITIZE=1",
]
flags = SANITIZE if os.environ.get("VMM_SANITIZE") else ["-O3"]
strict = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("VMM_STRICT_C") else []
ext = Extension(
    "kvm_ioctls._core",
    [
        "csrc/_core_cffi.c",
        *(f"csrc/{name}.c" for name in ("core", "answers", "trace", "exit", "rings", "signals", "layout")),
    ],
    include_dirs=["csrc"],
    depends=["csrc/core.h", "csrc/vcpu.h", "csrc/signals.h", *map(str, Path("csrc").glob("kvm_abi*.h"))],
    extra_compile_args=["-std=c11", *flags, *strict],
    extra_link_args=SANITIZE[:1] if os.environ.get("VMM_SANITIZE") else [],
    py_limited_api=True,
)
setup(ext_modules=[ext], options={"bdist_wheel": {"py_limited_api": "cp311"}})
