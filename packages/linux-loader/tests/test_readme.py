"""The README's promises."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_first_example_runs(capsys):
    """The first python block runs as it stands and prints what its comments say."""
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    exec(compile(block, str(README), "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    for comment in re.findall(r"^print.*#\s*(.*)$", block, re.M):
        assert comment in out


def test_threat_table():
    """The threat model is there with its five columns."""
    text = README.read_text().split("## Threat model")[1]
    assert "| trusted | untrusted | threat | mitigation | left to the caller |" in text
