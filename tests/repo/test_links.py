"""Links inside the repository: in every tracked Markdown file, to files and to their headings."""

import functools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def documents():
    """Return every Markdown file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


@functools.cache
def anchors(document):
    """Return what a forge makes of a document's headings (GitHub's rule)."""
    found = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-")
        count = found[slug] = found.get(slug, -1) + 1
        if count:
            found[f"{slug}-{count}"] = 0
    return set(found)


def links(document):
    """Yield the targets of a document's links and images, outside of code."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text()))
    yield from re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", text)
    yield from re.findall(r"^\[[^\]]+\]:\s+(\S+)", text, re.MULTILINE)


def broken(document):
    """Yield the links of a document that lead nowhere; those to other sites are not followed."""
    for target in links(document):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        file = (document.parent / path).resolve() if path else document
        if not file.is_relative_to(ROOT) or not file.exists():
            yield f"{document.relative_to(ROOT)}: {target} is not there"
        elif anchor and (file.suffix != ".md" or anchor not in anchors(file)):
            yield f"{document.relative_to(ROOT)}: {target} has no such heading"


def test_links_lead_somewhere():
    """Each relative link names a file of the repository, and each anchor a heading of it."""
    found = documents()
    assert len(found) > 20
    assert sum(1 for document in found for _ in links(document)) > 80
    assert [line for document in found for line in broken(document)] == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    """The rule bites: a missing file, a missing heading, a path out of the repository."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Top\n[a](#top) [b](gone.md) [c](#gone) [d](../x) `[e](gone)` [f](https://x.example)\n")
    assert [line.split(": ")[1].split(" ")[0] for line in broken(page)] == ["gone.md", "#gone", "../x"]
