"""The README's first example runs as it stands, and its tables are there."""

import re
from pathlib import Path

import pytest
from vmm_reference._cli import _parser
from vmm_reference._session import STATUS

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.kvm
def test_first_example_runs(capsys):
    """What a newcomer copies works and prints what it promises."""
    code = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "ended: poweroff\nguest: hello\n"


def test_threat_table_has_its_columns():
    """The README says whom the package trusts."""
    assert "## Threat model" in README
    assert "| trusted | untrusted | threat | mitigation | left to the caller |" in README


def test_every_option_and_status_is_in_its_table():
    """The tables follow the code."""
    help_text = _parser()._subparsers._group_actions[0].choices["run"].parser().format_help()
    options = set(re.findall(r"--[a-z-]+", help_text.split("A first run")[0])) - {"--help"}
    table = README.split("## Options")[1].split("## Exit")[0]
    assert options <= set(re.findall(r"--[a-z-]+", table))
    statuses = README.split("## Exit status")[1].split("## Events")[0]
    for status in STATUS.values():
        assert re.search(rf"\b{status}\b", statuses)
