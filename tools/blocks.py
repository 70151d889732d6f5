"""The blocks of Python of a page, run in order in one namespace; needs nothing but Python.

    tools/blocks.py PAGE…

A line for each block that a missing library stops, or that prints something else; then exit status 1.
"""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# A block of Python, and what it prints if a block of text follows at once.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def of(page: Path) -> list[tuple[str, str]]:
    """Return (code, promised output or "") of each block."""
    return BLOCK.findall(page.read_text())


def agrees(promised: str, printed: str) -> bool:
    """Tell whether a text is as promised, where each … stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in promised.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def printed_by(code: str, page: Path, namespace: dict[str, object]) -> str:
    """Run one block and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), namespace)
    return printed.getvalue()


def main(pages: Sequence[Path]) -> int:
    found = 0
    for page in pages:
        namespace: dict[str, object] = {"__name__": page.stem}
        for number, (code, promised) in enumerate(of(page), 1):
            try:
                printed = printed_by(code, page, namespace)
            except ImportError as error:
                trouble = str(error)
            else:
                trouble = "" if not promised or agrees(promised, printed) else f"prints {printed!r}"
            if trouble:
                print(f"{page} {number}: {trouble}")
            found += bool(trouble)
    return found > 0


if __name__ == "__main__":
    sys.exit(main([Path(word) for word in sys.argv[1:]]))
