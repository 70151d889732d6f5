"""The README's first example runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.testhost
def test_first_example_runs():
    """The first python block of the README is executed."""
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    exec(compile(block.group(1), str(README), "exec"), {})


def test_threat_table_is_there():
    """The README has its threat table."""
    assert "## Threat model" in README.read_text()
