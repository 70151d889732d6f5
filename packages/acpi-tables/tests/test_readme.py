"""The README's first example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_first_example_runs(capsys):
    """It prints the tables in the order its comment says."""
    (code, *_) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out == "['XSDT', 'FACP', 'APIC', 'DSDT']\n"
