"""The public face: every promised name is there, and building alone loads no reader."""

import subprocess
import sys

import acpi_tables
import pytest
from acpi_tables import aml


@pytest.mark.parametrize("module", [acpi_tables, aml])
def test_every_promised_name_exists(module):
    """`__all__` is sorted as ruff sorts it, has no doubles, and each name resolves."""
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_an_unknown_name_is_an_attribute_error():
    """Lazy loading does not swallow typing mistakes."""
    with pytest.raises(AttributeError, match="has no attribute 'parse_table'"):
        _ = acpi_tables.parse_table


def test_building_loads_no_reader():
    """The way to the first KVM_RUN stays short."""
    code = "import sys, acpi_tables; acpi_tables.build_tables; print(*sys.modules)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=240)
    loaded = set(done.stdout.split())
    assert "acpi_tables._build" in loaded
    assert loaded.isdisjoint({"acpi_tables._reader", "acpi_tables._methods", "acpi_tables.aml"})
