"""Build the abi3 C core; metadata lives in pyproject.toml."""

import os

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
    "vmm_memory._core",
    ["csrc/_core_cffi.c", "csrc/core.c", "csrc/bits.c", "csrc/bulk.c", "csrc/vector.c"],
    include_dirs=["csrc"],
    depends=["csrc/core.h", "csrc/vmm_access.h", "csrc/vmm_atomic.h"],
    extra_compile_args=["-std=c11", "-fvisibility=hidden", *flags, *strict],
    extra_link_args=SANITIZE[:1] if os.environ.get("VMM_SANITIZE") else [],
    py_limited_api=True,
)
setup(ext_modules=[ext], options={"bdist_wheel": {"py_limited_api": "cp311"}})
