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
sanitize = bool(os.environ.get("VMM_SANITIZE"))
flags = SANITIZE if sanitize else ["-O3"]
strict = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("VMM_STRICT_C") else []
ext = Extension(
    "virtio_devices._core",
    ["csrc/_core_cffi.c", "csrc/core.c", "csrc/net_rx.c", "csrc/net_tx.c"],
    include_dirs=["csrc"],
    depends=[
        f"csrc/{name}.h" for name in ("core", "net", "net_work", "stream", "virtio_batch", "vmm_access")
    ],
    extra_compile_args=["-std=c11", *flags, *strict],
    extra_link_args=SANITIZE[:1] if sanitize else [],
    py_limited_api=True,
)
setup(ext_modules=[ext], options={"bdist_wheel": {"py_limited_api": "cp311"}})
