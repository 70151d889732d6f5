"""The tutorial of each package: every code block runs as it stands and prints what the page says."""

import re
from pathlib import Path

import blocks
import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "packages"
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
NEEDS = {  # anything else runs everywhere
    "kvm-ioctls": pytest.mark.kvm,
    "vm-hypervisor": pytest.mark.kvm,
    "vmm-reference": pytest.mark.kvm,
    "vmm-testhost": pytest.mark.testhost,
}


def run_page(page):
    """Run the blocks of a page in one namespace; return (code, promised, printed) of those that differ."""
    namespace = {"__name__": page.stem}
    found = blocks.of(page)
    assert len(found) >= 3, f"{page}: a tutorial without code"
    ran = [(code, promised, blocks.printed_by(code, page, namespace)) for code, promised in found]
    return [block for block in ran if not blocks.agrees(*block[1:])]


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in PACKAGES])
def test_page_runs(name):
    """Each package has a page, and it keeps its word."""
    assert run_page(PAGES / f"{name}.md") == []


def test_header_page_runs():
    """The page of the C headers keeps its word, and names each of their functions."""
    page = PAGES / "vmm-access.md"
    assert run_page(page) == []
    header = (ROOT / "packages/vmm-memory/csrc/vmm_access.h").read_text()
    functions = re.findall(r"^static inline [^(]*?\b(vmm_\w+)\(", header, re.MULTILINE)
    private = {"vmm_count_below", "vmm_step", "vmm_copy_in", "vmm_copy_out", "vmm_refuses"}
    assert not [name for name in functions if name not in page.read_text() and name not in private]
    assert f"`VMM_ACCESS_ABI` is {re.search(r'VMM_ACCESS_ABI ([0-9]+)u', header)[1]}." in page.read_text()


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in PACKAGES])
def test_readme_runs(name):
    """All blocks of a package's README run as well, in order, in one namespace."""
    readme = ROOT / "packages" / name / "README.md"
    namespace = {"__name__": name}
    found = blocks.of(readme)
    assert found
    for code, _ in found:
        exec(compile(code, str(readme), "exec"), namespace)


def test_a_page_that_lies_is_found(tmp_path):
    """A block that prints something else, or prints where nothing is promised, is reported."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\nprint(x)\n```\n\n```text\n2\n```\n\n```python\nprint(x)\n```\n\n"
        "```python\nprint('a b')\n```\n\n```text\na …\n```\n"
    )
    assert [(promised, printed) for _, promised, printed in run_page(page)] == [("2\n", "1\n"), ("", "1\n")]
