"""Each package builds alone from its sdist; the wheels install together, offline, and work anywhere.

Built once by this Python, they pass the packages' own tests on it and on later ones.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import attrs
import blocks
import bounded
import pytest
from packaging.requirements import Requirement
from vmm_testhost.pytest_plugin import LONG

pytestmark = [pytest.mark.pure, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, {backend} as backend; print(getattr(backend, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(*command, cwd, limit=500):
    """Run a command without PYTHONPATH and the like of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return bounded.run([str(part) for part in command], limit=limit, cwd=cwd, env=kept)


def call(*command, cwd, limit=500):
    """Run a command as `run` does, and return what it printed."""
    ended = run(*command, cwd=cwd, limit=limit)
    assert ended.status == 0, f"{command[0]} ended with {ended.status}\n{ended.text[-8000:]}"
    return ended.output


def hook(package, kind, folder, output):
    """Call the PEP 517 hook that builds an sdist or a wheel, as pip would without isolation."""
    script = BUILD.format(backend=package.build_system["build-backend"])
    return output / call(sys.executable, "-c", script, kind, output, cwd=folder).split()[-1]


def built(package, tracked, scratch, wheels):
    """Build sdist, then wheel from nothing but that sdist; return both."""
    copy = scratch / package.name
    for path in tracked:
        if path.is_relative_to(package.path):
            target = copy / path.relative_to(package.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    sdist = hook(package, "sdist", copy, scratch)
    shutil.rmtree(copy)
    with tarfile.open(sdist) as archive:
        # Debian 12's 3.11.2 has no filters yet, and 3.12 warns without one.
        archive.extractall(scratch, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return sdist, hook(package, "wheel", scratch / sdist.name.removesuffix(".tar.gz"), wheels)


@pytest.fixture(scope="session")
def distributions(packages, tracked, tmp_path_factory):
    """(sdist, wheel) of every package; all wheels in one folder."""
    scratch, wheels = tmp_path_factory.mktemp("sdists"), tmp_path_factory.mktemp("wheels")
    return {name: built(package, tracked, scratch, wheels) for name, package in packages.items()}


def third_party(names):
    """The installed distributions that these requirements need, with all that those need in turn."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needs = map(Requirement, found[name].requires or ())
            waiting += [
                need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return found.values()


def fresh(place, needed, *wanted):
    """Make an environment with wheels of ours, which pip resolves from local files alone; return its Python.

    The few libraries that are not ours are borrowed from this environment, so that nothing is downloaded.
    """
    call(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv/bin/python"
    borrowed = place / "borrowed"
    borrowed.mkdir()
    for distribution in third_party(needed):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (borrowed / top).symlink_to(distribution.locate_file(top))
    site = Path(call(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=place).strip())
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    call(*pip, "install", "-q", "--no-index", *wanted, cwd=place)
    call(*pip, "check", cwd=place)
    return python


@pytest.fixture(scope="session")
def installed(packages, distributions, tmp_path_factory):
    """A fresh environment with all wheels; its interpreter."""
    needed = {Requirement(text).name for p in packages.values() for text in p.project["dependencies"]}
    wheels = next(iter(distributions.values()))[1].parent
    return fresh(tmp_path_factory.mktemp("fresh"), needed - set(packages), "--find-links", wheels, *packages)


def test_sdist_is_whole(package, distributions):
    """It holds texts, licences, tests and, for a core, every C file."""
    sdist, _ = distributions[package.name]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-BSD-3-CLAUSE", "pyproject.toml"}
    for folder, pattern in (("csrc", "*"), ("tests", "*.py")):
        wanted |= {
            f"{folder}/{path.name}" for path in (package.path / folder).glob(pattern) if path.is_file()
        }
    assert wanted - names == set()


def test_wheel_is_tagged_and_whole(package, distributions):
    """One wheel of a core serves every CPython from 3.11 on; it carries types and licences, and no C."""
    _, wheel = distributions[package.name]
    version = package.project["version"]
    tag = r"cp311-abi3-linux_\w+" if package.native else "py3-none-any"
    assert re.fullmatch(rf"{package.module}-{re.escape(version)}-{tag}\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"{package.module}-{version}.dist-info/METADATA").decode()
    shipped = {f"{package.module}/py.typed"}
    shipped |= {str(s.path.relative_to(package.path / "src")) for s in package.sources}
    shipped |= {
        f"{package.module}-{version}.dist-info/licenses/LICENSE-{x}" for x in ("APACHE", "BSD-3-Clause")
    }
    shipped |= {f"{package.module}/_core.abi3.so", f"{package.module}/_core.pyi"} if package.native else set()
    assert {name.lower() for name in shipped} - {name.lower() for name in names} == set()
    assert {name.split("/")[0] for name in names} == {package.module, f"{package.module}-{version}.dist-info"}
    assert not [name for name in names if name.endswith(".c")]
    assert "\nLicense-Expression: Apache-2.0 OR BSD-3-Clause\n" in metadata


def test_cores_keep_to_the_stable_abi(packages, distributions, tmp_path):
    """Of the interpreter's private symbols a core uses only those that the stable ABI promises."""
    for package in filter(lambda package: package.native, packages.values()):
        _, wheel = distributions[package.name]
        with zipfile.ZipFile(wheel) as archive:
            core = archive.extract(f"{package.module}/_core.abi3.so", tmp_path)
        symbols = set(call("nm", "-D", "--undefined-only", core, cwd=tmp_path).split())
        assert "PyImport_ImportModule" in symbols
        assert {name for name in symbols if name.startswith("_Py")} <= {"_Py_Dealloc", "_Py_NoneStruct"}
        needed = re.findall(r"NEEDED.*\[(.*)\]", call("readelf", "-d", core, cwd=tmp_path))
        # Nothing that a wheel would have to bring along; the loader, for thread-local storage, is libc's own.
        assert {"libc.so.6"} <= set(needed) <= {"libc.so.6", "ld-linux-x86-64.so.2"}


def test_it_imports_from_anywhere(package, installed, tmp_path):
    """Isolated, in an empty folder: every public module comes from the fresh environment."""
    modules = [s.module for s in package.sources if s.public and ".testing" not in s.module]
    modules = [name for name in modules if not name.endswith("pytest_plugin")]
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    places = call(installed, "-I", "-W", "error", "-c", script, *modules, cwd=tmp_path).split()
    assert len(places) == len(modules)
    assert all(Path(place).is_relative_to(installed.parents[1]) for place in places)


def test_commands_are_installed(packages, installed, tmp_path):
    """Each console script of each package runs."""
    for package in packages.values():
        for name in package.project.get("scripts", {}):
            assert "usage" in call(installed.parent / name, "--help", cwd=tmp_path).lower()


BRIEF = """
from hypothesis import HealthCheck, settings
settings.register_profile(
    "brief",
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("brief")
"""
TWO = ("vmm-memory", "virtio-queue")
PAGES = [ROOT / "packages" / name / "README.md" for name in TWO]
PAGES += [ROOT / "docs/packages" / f"{name}.md" for name in (*TWO, "vmm-access")]
CURE = "pip install 'virtio-queue[testing]'"
NO_KVM = """
import os, sys
def refuse(event, arguments):
    if event == "open" and "/dev/kvm" in str(arguments[0]):
        os._exit(97)
sys.addaudithook(refuse)
"""


@attrs.frozen
class Two:
    """An environment with two wheels of ours; any process of it that opens /dev/kvm ends with status 97."""

    python: Path
    hypothesis: bool


@pytest.fixture(scope="module", params=[True, False], ids=["testing", "bare"])
def two(request, packages, distributions, tmp_path_factory):
    """The wheels of TWO and what they need, with the extra `testing` and without."""
    projects = [packages[name].project for name in TWO]
    wanted = [text for project in projects for text in project["dependencies"]]
    if request.param:
        wanted += [text for project in projects for text in project["optional-dependencies"]["testing"]]
    if sys.version_info >= (3, 12):
        wanted.append("setuptools")  # no part of the libraries: a C extension of one's own is compiled by it
    extra = "[testing]" if request.param else ""
    wheels = [f"{distributions[name][1]}{extra}" for name in TWO]
    place = tmp_path_factory.mktemp("two")
    python = fresh(place, {Requirement(text).name for text in wanted} - set(TWO), *wheels)
    listed = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    assert set(call(python, "-c", listed, cwd=place).split()) & set(packages) == set(TWO)
    site = next(place.glob("venv/lib/python3*/site-packages"))
    (site / "no_kvm.py").write_text(NO_KVM)
    (site / "no_kvm.pth").write_text("import no_kvm\n")
    assert run(python, "-c", "open('/dev/kvm')", cwd=place).status == 97
    return Two(python, request.param)


def test_two_wheels_run_their_pages(two, tmp_path):
    """Each block of READMEs and tutorials; without Hypothesis all but those that search with it."""
    ended = run(two.python, "-I", ROOT / "tools/blocks.py", *PAGES, cwd=tmp_path)
    searches = [
        f"{page} {number}"
        for page in PAGES
        for number, (code, _) in enumerate(blocks.of(page), 1)
        if "testing.stateful" in code
    ]
    assert len(searches) == 2
    assert ended.errors == ""
    stopped = [line.split(": ", 1) for line in ended.output.splitlines()]
    assert [place for place, _ in stopped] == ([] if two.hypothesis else searches)
    assert all(reason.endswith(CURE) for _, reason in stopped)
    assert ended.status == (0 if two.hypothesis else 1)


def test_two_wheels_run_their_examples(two, tmp_path):
    """A C extension on the public headers; a device and its state machine, or what that needs."""
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "memory_checksum"
    call(two.python, "build_checksum.py", cwd=folder)
    assert call(two.python, "checksum.py", cwd=folder) == "0xebe19591\n0xebe19591\n"
    settings = BRIEF if two.hypothesis else ""
    own = f"{settings}import unittest\nunittest.main('own_device')"
    ended = run(two.python, "-c", own, cwd=tmp_path)
    assert (ended.status == 0) == two.hypothesis, ended.text
    assert ("Ran 1 test" if two.hypothesis else CURE) in ended.errors


PYTHONS = ("3.11", "3.12", "3.13")
OWN = ".".join(map(str, sys.version_info[:2]))
ELSEWHERE = [
    "kvm_full",
    "root_net",
    "testhost",
    "arm64",
    *([] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["kvm"]),
]


def skip(request, kind, reason):
    """Skip, counted by kind at the end of the run."""
    request.node.user_properties.append(("vmm_skip", f"{kind} ({reason})"))
    pytest.skip(f"{kind} ({reason})")


def find_python(version):
    """Return a CPython of that version: in PATH, pyenv's, or uv's; shims that start nothing do not count."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path.home() / ".local/share/uv/python"
    places = [Path(folder, f"python{version}") for folder in os.get_exec_path()]
    places += sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    places += sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"))
    probe = "import ensurepip, platform as p, ssl, venv; print(p.python_implementation(), p.python_version())"
    for place in filter(Path.exists, places):
        done = subprocess.run([place, "-c", probe], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith(f"CPython {version}."):
            return place
    return None


@attrs.frozen
class Target:
    """An environment with all wheels, and what the packages' tests need."""

    version: str
    python: Path


@pytest.fixture(params=PYTHONS)
def target(request, packages, distributions, tmp_path_factory):
    """An environment of each Python with the wheels that this one built."""
    wheels = next(iter(distributions.values()))[1].parent
    place = tmp_path_factory.mktemp(f"python{request.param}-")
    wanted = {text for p in packages.values() for text in p.project["dependencies"]}
    wanted |= {
        text for p in packages.values() for text in p.project.get("optional-dependencies", {}).get("test", ())
    }
    others = sorted(text for text in wanted if Requirement(text).name not in packages)
    if request.param == OWN:
        needed = {Requirement(text).name for text in others}
        return Target(request.param, fresh(place, needed, "--find-links", wheels, *packages))
    found = find_python(request.param)
    if found is None:
        skip(
            request,
            f"python{request.param}",
            f"no CPython {request.param} here: install one, or pyenv's or uv's",
        )
    call(found, "-m", "venv", place / "venv", cwd=place)
    python = place / "venv/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    call(*pip, "install", "-q", "--no-index", "--no-deps", "--find-links", wheels, *packages, cwd=place)
    command = [
        *map(str, pip),
        "install",
        "-q",
        "--retries",
        "1",
        "-c",
        str(ROOT / "constraints.txt"),
        *others,
    ]
    if subprocess.run(command, cwd=place, check=False, capture_output=True).returncode != 0:
        skip(request, f"python{request.param}", "its libraries cannot be downloaded: needs a package index")
    call(*pip, "check", cwd=place)
    return Target(request.param, python)


@pytest.mark.timeout(1800)
def test_wheels_pass_the_packages_tests(packages, distributions, target, tmp_path):
    """The tests of every sdist, on the wheels instead of its sources: pure ones and those of any KVM.

    On any Python but the last those of the cores, unless there is time for all. On this one, which runs them
    from the sources anyway, without virtio-queue's: longest, for searches in plain Python, and its core works
    under the devices.
    """
    tests = tmp_path / "packages"
    whole = LONG or target.version == PYTHONS[-1]
    for name, (sdist, _) in distributions.items():
        core = packages[name].native and (target.version, name) != (OWN, "virtio-queue")
        if not (whole or core):
            call(target.python, "-c", f"import {packages[name].module}", cwd=tmp_path)
            continue
        source = sdist.parent / sdist.name.removesuffix(".tar.gz")
        shutil.copytree(source, tests / name, ignore=shutil.ignore_patterns("src", "build", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "conftest.py").write_text(BRIEF)
    command = [target.python, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--hypothesis-profile=brief"]
    command += ["-m", f"not ({' or '.join(ELSEWHERE)})", tests]
    summary = call(*command, cwd=tmp_path, limit=1500).splitlines()[-1]
    assert int(re.search(r"(\d+) passed", summary)[1]) > 1000
