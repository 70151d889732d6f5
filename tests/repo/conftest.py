"""Fixtures: the packages as they stand in this repository, and what git tracks."""

import ast
import functools
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One shipped Python file."""

    path: Path
    module: str
    tree: ast.Module
    lines: int

    @property
    def public(self):
        """Whether others may import it."""
        return not any(part.startswith("_") for part in self.module.split("."))

    def imports(self):
        """Yield the full names of the modules that it imports, wherever in the file."""
        parent = self.module.split(".") if self.path.name == "__init__.py" else self.module.split(".")[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = parent[: len(parent) - node.level + 1] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                # `from package import _module` imports a module too; a name that is none does no harm here.
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


@dataclass(frozen=True)
class Package:
    """One folder of packages/."""

    path: Path

    def __str__(self):
        return self.name

    @property
    def name(self):
        """The distribution's name."""
        return self.path.name

    @property
    def module(self):
        """The name that `import` takes."""
        return self.name.replace("-", "_")

    @property
    def native(self):
        """Whether it has a C core."""
        return (self.path / "csrc").is_dir()

    @functools.cached_property
    def project(self):
        """The table [project] of its pyproject.toml."""
        return tomllib.loads((self.path / "pyproject.toml").read_text())["project"]

    @functools.cached_property
    def build_system(self):
        """The table [build-system] of its pyproject.toml."""
        return tomllib.loads((self.path / "pyproject.toml").read_text())["build-system"]

    @functools.cached_property
    def sources(self):
        """Every shipped Python file."""
        found = []
        for path in sorted((self.path / "src").rglob("*.py")):
            parts = path.relative_to(self.path / "src").with_suffix("").parts
            text = path.read_text()
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Source(path, module, ast.parse(text), text.count("\n")))
        return found


PACKAGES = {path.parent.name: Package(path.parent) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}


def pytest_generate_tests(metafunc):
    """A test that asks for `package` runs once for each."""
    if "package" in metafunc.fixturenames:
        metafunc.parametrize("package", PACKAGES.values(), ids=str)


@pytest.fixture(scope="session")
def packages():
    """All packages by name."""
    return PACKAGES


@pytest.fixture(scope="session")
def tracked():
    """Paths of all files that git tracks or would, from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file()]
