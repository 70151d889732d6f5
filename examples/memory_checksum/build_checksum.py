"""Builds the extension: cffi writes it, setuptools compiles it, `get_include()` says where the header is.

    python build_checksum.py [FOLDER]     # leaves _checksum.*.so in the folder, the current one by default

A project of its own would name this file in its setup.py, `cffi_modules=["build_checksum.py:builder"]`, with
vmm-memory among the build requirements.
"""

import sys
from pathlib import Path

from cffi import FFI
from vmm_memory import get_include

HERE = Path(__file__).resolve().parent

builder = FFI()
builder.cdef("int checksum_fletcher32(uintptr_t address, uint64_t gpa, uint64_t len, uint32_t *ret);")
builder.set_source(
    "_checksum",
    "int checksum_fletcher32(uintptr_t address, uint64_t gpa, uint64_t len, uint32_t *ret);",
    sources=[str(HERE / "checksum.c")],
    include_dirs=[get_include()],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"],
)

if __name__ == "__main__":
    builder.compile(tmpdir=sys.argv[1] if len(sys.argv) > 1 else ".", verbose=False)
