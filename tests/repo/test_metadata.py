"""What each package says of itself: versions, bounds between siblings, licences, texts."""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LICENSES = ("LICENSE-APACHE", "LICENSE-BSD-3-CLAUSE")


def requirements(package):
    """Every requirement that the package states, extras included."""
    extras = package.project.get("optional-dependencies", {})
    return [Requirement(text) for text in sum(extras.values(), package.project["dependencies"])]


def breaking(version):
    """The next version that may break users: the next minor one before 1.0, then the next major one."""
    return Version(f"0.{version.minor + 1}" if version.major == 0 else f"{version.major + 1}")


def test_sibling_bounds_hold(package, packages):
    """A bound on a sibling is `>=low,<high`, admits the sibling as it is, and ends before it may break."""
    for requirement in requirements(package):
        if requirement.name not in packages:
            continue
        version = Version(packages[requirement.name].project["version"])
        bounds = {bound.operator: Version(bound.version) for bound in requirement.specifier}
        assert set(bounds) == {">=", "<"}, requirement
        assert version in requirement.specifier, f"{requirement} excludes {version}"
        assert bounds["<"] <= breaking(version), f"{requirement} admits versions that may break"


def test_third_party_bounds_are_lower_bounds(package):
    """A library that is not ours is bounded from below, and never pinned."""
    for requirement in requirements(package):
        assert {bound.operator for bound in requirement.specifier} <= {">=", "<"}, requirement
        assert ">=" in {bound.operator for bound in requirement.specifier}, requirement


def test_pages_give_bounds_as_they_are(packages, tracked):
    """A bound on a package of ours that a page names is one that some package states."""
    stated = {str(requirement) for package in packages.values() for requirement in requirements(package)}
    bound = rf"\b(?:{'|'.join(packages)})[<>=~!][\d.<>=~!,]*\d"
    pages = [path for path in tracked if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    found = [(page, Requirement(text)) for page in pages for text in re.findall(bound, page.read_text())]
    assert ROOT / "README.md" in {page for page, _ in found}
    assert [(str(page), str(text)) for page, text in found if str(text) not in stated] == []


def test_extra_testing_is_what_shipped_testing_needs(package):
    """Who imports Hypothesis has the extra `testing`, with it and nothing else; nobody else has it."""
    roots = {name.split(".")[0] for source in package.sources for name in source.imports()}
    extra = package.project.get("optional-dependencies", {}).get("testing", [])
    needs = "hypothesis" in roots and package.name != "vmm-testhost"  # whose module Hypothesis itself imports
    assert [Requirement(text).name for text in extra] == (["hypothesis"] if needs else [])


def test_dependencies_are_what_is_imported(package, packages):
    """The siblings it depends on are exactly those its shipped code imports."""
    declared = {Requirement(text).name for text in package.project["dependencies"]}
    roots = {name.split(".")[0] for source in package.sources for name in source.imports()}
    imported = {other.name for other in packages.values() if other.module in roots}
    assert declared & set(packages) == imported - {package.name}


def test_metadata_is_complete(package):
    """Name, version, Python, licence and description are what every package has in common."""
    project = package.project
    assert project["name"] == package.name
    assert Version(project["version"]).release[:3] == Version(project["version"]).release
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0 OR BSD-3-Clause"
    assert project["readme"] == "README.md"
    assert 20 <= len(project["description"]) <= 150
    assert "Typing :: Typed" in project["classifiers"]


def test_changelog_speaks_of_this_version(package):
    """The newest entry of the changelog is the version of pyproject.toml, and it says something."""
    entries = re.split(r"^## ", (package.path / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    newest, _, body = entries[0].partition("\n")
    assert newest.split()[0].strip("[]") == package.project["version"]
    assert "### Added" in body or "- " in body


def test_dunder_version_agrees(package):
    """A package that shows __version__ shows the one of its pyproject.toml."""
    for source in package.sources:
        text = source.path.read_text()
        for version in re.findall(r'^__version__ = "(.*)"$', text, flags=re.MULTILINE):
            assert version == package.project["version"]


@pytest.mark.parametrize("name", LICENSES)
def test_licenses_are_the_roots(package, name):
    """Each package carries the same licence texts as the root."""
    assert (package.path / name).read_bytes() == (ROOT / name).read_bytes()


def test_readme_has_an_example_and_a_threat_table(package):
    """A first example in Python or shell, one that a test runs, and a threat table with rows."""
    readme = (package.path / "README.md").read_text()
    assert readme.startswith(f"# {package.name}\n")
    assert re.search(r"^```(python|sh|console)$", readme, flags=re.MULTILINE)
    _, found, rest = readme.partition("\n## Threat model\n")
    assert found
    table = [line for line in rest.split("\n## ")[0].splitlines() if line.startswith("|")]
    assert len(table) >= 4, "heading, rule and at least two threats"
    assert {line.count("|") for line in table} == {6}, (
        "trusted, untrusted, threat, mitigation, left to caller"
    )
    assert (package.path / "tests/test_readme.py").exists()


def test_it_is_typed_and_tested(package):
    """py.typed is shipped, there are tests, and test folders are not packages."""
    assert (package.path / "src" / package.module / "py.typed").exists()
    assert list((package.path / "tests").glob("test_*.py"))
    assert not list((package.path / "tests").rglob("__init__.py"))


def test_the_workspace_names_every_package(packages):
    """requirements-dev.txt installs each package after those it needs; uv finds each in the workspace."""
    lines = re.findall(r"^-e \./packages/(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert sorted(lines) == sorted(packages)
    for name, package in packages.items():
        needed = {Requirement(text).name for text in package.project["dependencies"]} & set(packages)
        assert all(lines.index(other) < lines.index(name) for other in needed)
    workspace = (ROOT / "pyproject.toml").read_text()
    assert all(f"{name} = {{ workspace = true }}" in workspace for name in packages)


def test_every_readme_says_what_is_needed_and_promised(packages):
    """Python, kernel and stability of the interface, in the same words everywhere."""
    heading = "## Requirements and stability\n\n"
    texts = {
        (package.path / "README.md").read_text().partition(heading)[2].partition("\n## ")[0].rstrip("\n")
        for package in packages.values()
    }
    (text,) = texts
    assert re.search(r"CPython 3\.11 .*Linux 4\.11 .*0\.x: a minor release may break", text, re.DOTALL)


@pytest.mark.parametrize("file", ["requirements-dev.txt", "requirements-docs.txt"])
def test_what_make_installs_is_pinned(file):
    """Each requirement of the workspace has one version in constraints.txt, within its own bounds."""
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    lines = (ROOT / file).read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    assert "-c constraints.txt" in lines
    assert [need.name for need in wanted if pins[need.name] not in need.specifier] == []
    assert len(wanted) >= 3


def test_pins_hold_on_the_oldest_python():
    """Debian 12 has 3.11.2; what is installed here by its pin says what it needs."""
    refused = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, found, version = line.partition("==")
        try:
            told = metadata(name) if found else None
        except PackageNotFoundError:  # the site's, where `make docs` has not been
            told = None
        if told is not None and told["Version"] == version:
            needs = SpecifierSet(told["Requires-Python"] or "")
            refused |= {} if "3.11.2" in needs else {name: str(needs)}
    assert refused == {}
