"""Our packages in the emulated arm64 host: `tools/arm64.py [OPTIONS] -- COMMAND…` runs a command there.

The C cores are cross-built, and all that Python imports there lies in build/aarch64/site, which no
interpreter of this machine sees. OPTIONS are those of vmm-testhost.
"""

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import vmm_testhost
from vmm_testhost.debian import fetch_package

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "aarch64"
SITE = BUILD / "site"
COMPILER = "aarch64-linux-gnu-gcc"
TOOLS = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
HEADERS = "libpython3.11-dev"
SUITE = "bookworm:arm64"
# What the packages and their tests import, at the versions of constraints.txt.
WHEELS = ("attrs", "cffi", "hypothesis", "lz4", "perfetto", "pytest", "pytest-timeout", "zstandard")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_28_aarch64")


class CrossBuildError(Exception):
    """The packages could not be built for arm64."""


def arguments(*, memory: int, writable: Sequence[Path] = ()) -> list[str]:
    """Return the words of a vmm-testhost that sees the packages; `--` and the command follow."""
    command = [sys.executable, "-m", "vmm_testhost", "--arch", "aarch64", "--memory", str(memory)]
    command += ["--env", f"PYTHONPATH={SITE}"]
    return command + [word for path in writable for word in ("--writable", str(path))]


def prepare() -> Path:
    """Fetch the host, build the packages for it, and return the folder for its PYTHONPATH.

    Raises:
        vmm_testhost.SetupError: something is missing and cannot be fetched; its cure says what to run.
        CrossBuildError: pip or a compiler failed; the message has its output.
    """
    vmm_testhost.prepare("aarch64")
    _ensure_compiler()
    wheels = _wheels()
    cores = _cores(fetch_package(HEADERS, suite=SUITE))
    _compose(wheels, cores)
    return SITE


def _ensure_compiler() -> None:
    if shutil.which(COMPILER) and Path("/usr/aarch64-linux-gnu/include/stdlib.h").exists():
        return
    if os.geteuid() != 0:
        cure = f"sudo apt-get install {' '.join(TOOLS)}"
        raise vmm_testhost.SetupError(f"{COMPILER} or its C library is missing", cure)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *TOOLS], env=environment)


def _run(argv: Sequence[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, cwd=cwd, env=env, check=False, text=True, capture_output=True)
    if done.returncode != 0:
        raise CrossBuildError(f"{' '.join(argv)}:\n{(done.stdout + done.stderr)[-4000:]}")


def _wheels() -> Path:
    """Return a folder with the aarch64 wheels of what we import, for the versions of constraints.txt."""
    constraints = ROOT / "constraints.txt"
    folder, stamp = BUILD / "wheels", BUILD / "wheels.stamp"
    wanted = f"{WHEELS}{PLATFORMS}{constraints.read_text()}"
    if folder.is_dir() and stamp.exists() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(folder), "--only-binary=:all:", "--python-version", "3.11", *platforms]
    _run([*command, "--constraint", str(constraints), *WHEELS])
    stamp.write_text(wanted)
    return folder


def _cores(headers: Path) -> dict[str, list[Path]]:
    """Cross-build the C cores, if they changed; return the extension files of each import package."""
    include = headers / "usr/include"
    environment = {
        **os.environ,
        "CC": COMPILER,
        "LDSHARED": f"{COMPILER} -shared",
        "CFLAGS": f"-I{include}/python3.11 -I{include}",
    }
    library = BUILD / "lib"
    for setup in sorted(ROOT.glob("packages/*/setup.py")):
        temporary = BUILD / "temp" / setup.parent.name
        command = [sys.executable, "setup.py", "-q", "build_ext"]
        command += ["--build-lib", str(library), "--build-temp", str(temporary)]
        _run(command, cwd=setup.parent, env=environment)
    built: dict[str, list[Path]] = {}
    for path in library.glob("*/*.so"):
        built.setdefault(path.parent.name, []).append(path)
    return built


def _compose(wheels: Path, cores: dict[str, list[Path]]) -> None:
    """Make the folder for PYTHONPATH anew: links to wheels and sources, with the arm64 cores among them."""
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir(parents=True)
    for entry in wheels.iterdir():
        (SITE / entry.name).symlink_to(entry)
    installed = Path(sysconfig.get_path("purelib"))
    for source in sorted(ROOT.glob("packages/*/src/*")):
        if not (source / "__init__.py").exists():
            continue
        # For its entry points: the plugins of pytest and Hypothesis.
        for info in installed.glob(f"{source.name}-*.dist-info"):
            (SITE / info.name).symlink_to(info)
        target = SITE / source.name
        if source.name not in cores:
            target.symlink_to(source)
            continue
        target.mkdir()
        for entry in source.iterdir():
            if entry.suffix != ".so" and entry.name != "__pycache__":
                (target / entry.name).symlink_to(entry)
        for core in cores[source.name]:
            (target / core.name).symlink_to(core)
    # The same byte code runs there, where compiling would take 15 times as long.
    compileall.compile_dir(SITE, quiet=1, workers=1)


def main() -> int:
    words = sys.argv[1:]
    if words in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        prepare()
    except (vmm_testhost.SetupError, CrossBuildError) as error:
        sys.exit(f"arm64: {error}")
    return subprocess.run([*arguments(memory=3072), *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
