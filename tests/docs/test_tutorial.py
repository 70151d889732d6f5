"""The tutorial: each page shows what its program is, and each program does what its page says."""

import difflib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
PROGRAMS = sorted((TUTORIAL / "steps").glob("step*.py"))
GROWING = {6: 5, 7: 6, 8: 7}  # these programs are the one before and something more
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def number(program):
    """Return which step a program is."""
    return int(re.match(r"step(\d)", program.name)[1])


def page_of(step):
    """Return the text of a step's page."""
    (page,) = TUTORIAL.glob(f"{step}-*.md")
    return page.read_text()


def blocks(step, language):
    """Return the fenced blocks of a page."""
    return [text for kind, text in FENCE.findall(page_of(step)) if kind == language]


def lines_of(text):
    """Return what there is to read: no blank lines, no indentation."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def new_lines(program):
    """Return the lines that a step adds, without its title, imports and last two lines."""
    body = program.read_text().partition('"""\n')[2]
    body = re.sub(r"^(?:from|import) [^\n(]*(?:\([^)]*\))?", "", body, flags=re.MULTILINE)
    lines = lines_of(body.partition('if __name__ == "__main__":')[0])
    before = next((other for other in PROGRAMS if number(other) == GROWING.get(number(program))), None)
    if before is None:
        return lines
    compared = difflib.ndiff(lines_of(before.read_text()), lines)
    return [line[2:] for line in compared if line.startswith("+ ")]


def expected(step):
    """Return a page's output block as a pattern: each … stands for anything."""
    (text,) = blocks(step, "text")
    return ".*?".join(re.escape(part) for part in text.split("…"))


def test_every_step_has_its_page():
    """Eight of them, all in the index."""
    assert [number(program) for program in PROGRAMS] == list(range(1, 9))
    index = (TUTORIAL / "index.md").read_text()
    assert all(f"](steps/{program.name})" in index for program in PROGRAMS)
    assert all(f"steps/{program.name}\n" in page_of(number(program)) for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_the_page_shows_the_program(program):
    """Each block is a part of the program, word for word; what a step adds is shown."""
    source = program.read_text()
    shown = blocks(number(program), "python")
    dedented = [textwrap.dedent(source[match.start() :]) for match in re.finditer(r"^", source, re.MULTILINE)]
    assert [block for block in shown if block not in source and block not in dedented] == []
    lines = {line for block in shown for line in lines_of(block)}
    assert [line for line in new_lines(program) if line not in lines] == []


def test_the_vmm_is_as_short_as_its_page_says():
    """The last step, without blank lines."""
    lines = len(lines_of(PROGRAMS[-1].read_text()))
    assert f"{lines} lines without blank ones" in page_of(8)
    assert f"{lines} lines" in (TUTORIAL / "index.md").read_text()
    assert lines <= 160


def run(*programs):
    """Run programs one after the other in one process, warnings as errors; return what each printed."""
    mark, paths = "---- next ----", [str(program) for program in programs]
    code = f"""
import runpy, sys
for path in {paths}:
    print({mark!r}, flush=True)
    sys.argv, sys.path[0] = [path], path.rpartition("/")[0]
    runpy.run_path(path, run_name="__main__")
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return [part.lstrip("\n") for part in done.stdout.replace("\r", "").split(mark)[1:]]


def check(*steps):
    """Run these steps and compare what they print with their pages."""
    chosen = [program for program in PROGRAMS if number(program) in steps]
    for program, output in zip(chosen, run(*chosen), strict=True):
        assert re.fullmatch(expected(number(program)), output, re.DOTALL), f"{program.name}:\n{output}"


@pytest.mark.kvm
def test_steps_for_any_kvm():
    """Guests of a few bytes: memory, a bus, an interrupt."""
    check(1, 2, 3)


def test_step_without_a_guest():
    """The virtio device and its driver."""
    check(4)


@pytest.mark.kvm_full
@pytest.mark.timeout(400)
def test_steps_that_boot_linux():
    """Four boots of Debian's kernel, from a serial console to the whole VMM."""
    check(5, 6, 7, 8)
