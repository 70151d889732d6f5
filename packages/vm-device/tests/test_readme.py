"""The README's first example runs as it stands, and its threat table is there."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_first_example(capsys):
    """What a newcomer copies works."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert "hello from the guest" in capsys.readouterr().out


def test_threat_table():
    """The table has the columns all packages share."""
    table = README.split("## Threat model", 1)[1]
    for column in ("trusted", "untrusted", "threat", "mitigation", "left to the caller"):
        assert column in table.split("|---")[0].lower()
