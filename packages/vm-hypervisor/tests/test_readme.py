"""The README's first example runs as it stands, and its threat table is there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.kvm
def test_first_example_runs(capsys):
    """What a newcomer copies works and prints what it promises."""
    code = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "counted while running: True - while paused: 0\n"


def test_threat_table_has_its_columns():
    """The README says whom the package trusts."""
    assert "## Threat model" in README
    assert "| trusted | untrusted | threat | mitigation | left to the caller |" in README
