"""The README's first example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_first_example_runs(capsys):
    """The example prints what it promises."""
    source = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    exec(compile(source, "README.md", "exec"), {})
    assert capsys.readouterr().out == "interrupt the driver: True\n[(b'oitriv',)]\n"


def test_threat_table_is_there():
    """The heading that the house looks for."""
    assert "\n## Threat model\n" in README.read_text()
