"""What README.md, docs/ and examples/README.md name exists: files, the names in them, links, make targets."""

import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    path for folder in ("docs", "docs/tutorial", "docs/packages") for path in (ROOT / folder).glob("*.md")
)
DOCUMENTS = ("README.md", "examples/README.md", *sorted(str(path.relative_to(ROOT)) for path in PAGES))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# A path in backticks, perhaps with ":Name" or ":Class.method" or "::test_id" behind it.
CODE_PATH = re.compile(r"`(\.?\w[\w.\-/]*/(?:[\w.\-]+\.(?:py|pyi|c|h|md|toml|sh))?)(::?[\w.]+)?`")


def text_of(document: str) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", (ROOT / document).read_text())


def prose_and_blocks(document: str) -> str:
    """Return a document whole: commands stand in blocks as well as in prose."""
    return (ROOT / document).read_text()


@functools.cache
def find(path: str) -> Path | None:
    """Return what a document means by `path`: from the root, from packages/, or inside some package."""
    inside = ("packages/*/src", "packages/*", "packages/*/src/*")
    bases = [ROOT, ROOT / "packages", *(base for pattern in inside for base in sorted(ROOT.glob(pattern)))]
    return next((base / path for base in bases if (base / path).exists()), None)


def defines(file: Path, name: str) -> bool:
    """Whether a file defines each part of a dotted name: class, function, constant or attribute."""
    source = file.read_text()
    python = r"(?:^\s*(?:def|class|async def) {0}\b|^\s*(?:self\.)?{0}\b[^=\n]*=|^\s*{0}:)"
    pattern = python if file.suffix in {".py", ".pyi"} else r"\b{0}\b"
    return all(re.search(pattern.format(part), source, re.MULTILINE) for part in name.split("."))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document):
    """Every file and folder that is named is there."""
    named = [path for path, _ in CODE_PATH.findall(text_of(document))]
    assert [path for path in named if find(path) is None] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_are_defined(document):
    """Every `file:Name` is defined in that file."""
    named = [(path, name.lstrip(":")) for path, name in CODE_PATH.findall(text_of(document)) if name]
    missing = [f"{path}:{name}" for path, name in named if not defines(find(path) or ROOT / path, name)]
    assert missing == []


def test_the_ways_are_mapped():
    """The map is dense: a newcomer gets names, not hints."""
    named = [name for _, name in CODE_PATH.findall(text_of("docs/architecture.md")) if name]
    assert len(named) > 100


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document):
    """Every relative link leads to a file, and every anchor to a heading of this document."""
    text = text_of(document)
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            broken += [target] if target[1:] not in anchors else []
        elif "://" not in target and not ((ROOT / document).parent / target.partition("#")[0]).exists():
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    """Every `make TARGET` is a rule of the Makefile."""
    rules = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|\$ )make ([a-z][\w-]*)", prose_and_blocks(document), re.MULTILINE))
    assert named - rules == set()


def test_every_package_is_on_the_map():
    """README.md and docs/architecture.md link every package."""
    packages = [path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")]
    for document in ("README.md", "docs/architecture.md"):
        text = text_of(document)
        assert [name for name in packages if f"packages/{name}/" not in text] == []
