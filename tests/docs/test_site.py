"""`make docs`: the site builds without a warning, holds every public name, and needs no network."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPHINX = ["-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", "html"]


def public_modules():
    """Return the names of all modules that others may import, by their files."""
    names = []
    for source in ROOT.glob("packages/*/src"):
        for path in source.rglob("*.py"):
            parts = [*path.relative_to(source).with_suffix("").parts]
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") for part in parts):
                names.append(".".join(parts))
    return sorted(names)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make docs` does, and return its folder."""
    pytest.importorskip("sphinx", reason="`make docs` and `make test` install it")
    folder = tmp_path_factory.mktemp("site")
    assert " ".join(SPHINX) in (ROOT / "Makefile").read_text()
    command = [sys.executable, *SPHINX, "-d", str(folder / "doctrees"), ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def inventory(site):
    """Return the names that other sites could link to: {full name: kind}."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", lambda _base, path: path)
    return {name: kind for kind, names in found.items() if kind.startswith("py:") for name in names}


@pytest.mark.timeout(600)
def test_every_public_name_is_in_the_reference(inventory):
    """Every public module, and every name of its `__all__`; no private module."""
    missing = []
    for name in public_modules():
        module = importlib.import_module(name)
        missing += [] if name in inventory else [name]
        exported = [item for item in getattr(module, "__all__", ()) if item != "__version__"]
        missing += [f"{name}.{item}" for item in exported if f"{name}.{item}" not in inventory]
    assert missing == []
    assert {name for name, kind in inventory.items() if kind == "py:module" and "._" in name} == set()


@pytest.mark.timeout(600)
def test_methods_of_private_bases_are_there(inventory):
    """A class that is put together from private ones shows their public methods as its own."""
    kvm = importlib.import_module("kvm_ioctls")
    for kind in (kvm.Kvm, kvm.VmFd, kvm.VcpuFd):
        methods = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"]
        assert len(methods) > 5
        assert [name for name in methods if f"kvm_ioctls.{kind.__name__}.{name}" not in inventory] == []


@pytest.mark.timeout(600)
def test_pages_load_nothing_from_elsewhere(site):
    """Scripts, styles, fonts and images come from the site itself; links may lead out."""
    loaded = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["'](?:https?:)?//""")
    imported = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")
    pages = [*site.rglob("*.html")]
    assert len(pages) > 40
    assert [page for page in pages if loaded.search(page.read_text())] == []
    assert [sheet for sheet in site.rglob("*.css") if imported.search(sheet.read_text())] == []


@pytest.mark.timeout(600)
def test_the_search_finds_names_and_words(site):
    """The index that the page's own script reads knows classes by name and pages by word."""
    index = (site / "searchindex.js").read_text()
    assert '"GuestMemoryMmap"' in index or "guestmemorymmap" in index
    assert '"ioeventfd"' in index or "ioeventfd:" in index
    assert "searchtools.js" in (site / "search.html").read_text()


@pytest.mark.timeout(600)
def test_docstrings_are_shown_as_they_are_written(site):
    """A colon in the first line of a property, and types without the private modules they are made in."""
    page = (site / "docs/api/vm-hypervisor.html").read_text()
    assert 'Short name: "kvm"' in page.replace("&quot;", '"')
    text = re.sub(r"<[^>]+>", "", re.sub(r'(?:href|id|title)="[^"]*"', "", page))
    assert "class vm_hypervisor.KvmVcpu" in text.replace("\n", "").replace("&nbsp;", " ")
    assert re.findall(r"\b\w+\._\w+\.\w+", text) == []


@pytest.mark.timeout(600)
def test_its_front_door_leads_in(site):
    """index.html forwards to the first page."""
    target = re.search(r'url=([^"]+)"', (site / "index.html").read_text())
    assert target
    assert (site / target[1]).exists()
