"""The README's first example."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_first_example_runs():
    """The first python block runs as it stands."""
    block = re.search(r"^```python\n(.*?)^```", README, re.M | re.S)
    exec(compile(block[1], "README.md", "exec"), {"__name__": "readme"})


def test_has_a_threat_table():
    """The table is there with its five columns."""
    assert "## Threat model" in README
    assert re.search(r"\| trusted \| untrusted \| threat \| mitigation \| left to the caller \|", README)
