"""The yardsticks, built when they are asked for. One that cannot be built is missing, not an error."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


@functools.cache
def floor(*targets: str) -> tuple[Path, ...]:
    """Return bench/floor/bin/TARGET…, brought up to date.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    names = [f"bin/{target}" for target in targets]
    command = ["make", "-s", "-C", str(HERE / "floor"), f"PYTHON={sys.executable}", *names]
    subprocess.run(command, check=True)
    return tuple(HERE / "floor" / name for name in names)


def extension(name: str) -> ModuleType:
    """Return bench/floor/NAME.c as an imported module, built for this interpreter.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    (path,) = floor(f"{name}.so")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def peer(version: str) -> Path | None:
    """Return the Rust peer of bench/peers/VERSION (`best`, `newest`), or None with the reason printed."""
    if shutil.which("cargo") is None:
        print(f"bench: Rust peer '{version}' is missing: there is no cargo")
        return None
    folder = HERE / "peers" / version
    target = HERE / "peers" / "target" / version
    print(f"bench: building the Rust peer '{version}' …", flush=True)
    done = subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(folder / "Cargo.toml")],
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"bench: Rust peer '{version}' is missing: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return target / "release" / "peer"
