"""The header that the wheel ships."""

from pathlib import Path

import vmm_memory


def test_shipped_header_is_the_source():
    """The packaged copy is csrc/vmm_access.h, byte for byte; after a change, copy it again."""
    source = Path(__file__).parents[1] / "csrc" / "vmm_access.h"
    assert (Path(vmm_memory.get_include()) / "vmm_access.h").read_bytes() == source.read_bytes()
