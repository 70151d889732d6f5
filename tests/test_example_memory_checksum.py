"""examples/memory_checksum: a C extension outside the packages, built against the installed header."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vmm_memory import GuestMemoryMmap, InvalidGuestAddressError, IommuFaultError, IommuMemory

EXAMPLE = Path(__file__).parents[1] / "examples/memory_checksum"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the compiled extension."""
    folder = tmp_path_factory.mktemp("checksum")
    subprocess.run([sys.executable, EXAMPLE / "build_checksum.py", folder], cwd=folder, check=True)
    return folder


@pytest.fixture
def checksum(built, monkeypatch):
    """The example as a module."""
    monkeypatch.syspath_prepend(str(built))
    spec = importlib.util.spec_from_file_location("checksum", EXAMPLE / "checksum.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fletcher32(data):
    """Fletcher-32 as its definition says, over little-endian 16-bit words."""
    low = high = 0xFFFF
    for i in range(0, len(data), 2):
        low = (low + data[i] + 256 * data[i + 1]) % 65535
        high = (high + low) % 65535
    return high << 16 | low


def test_it_runs_as_its_first_lines_say(built):
    """Both ways to the same bytes give the published sum of "abcdefgh", 0xebe19591."""
    env = os.environ | {"PYTHONPATH": str(built)}
    command = [sys.executable, EXAMPLE / "checksum.py"]
    done = subprocess.run(command, env=env, cwd=built, check=True, capture_output=True, text=True)
    assert done.stdout == "0xebe19591\n0xebe19591\n"


def test_it_reads_what_is_there(checksum):
    """Over two regions, and what cannot be read is refused as by the package's own calls."""
    memory = GuestMemoryMmap.from_ranges([(0, 4096), (4096, 4096)])
    data = os.urandom(5000)
    memory.write(1000, data)
    assert checksum.fletcher32(memory, 1000, 5000) == fletcher32(data)
    with pytest.raises(InvalidGuestAddressError):
        checksum.fletcher32(memory, 8000, 5000)
    with pytest.raises(ValueError, match="size is 3, must be even"):
        checksum.fletcher32(memory, 0, 3)
    with pytest.raises(IommuFaultError, match="IOVA 0x8000 is not translated"):
        checksum.fletcher32(IommuMemory(memory, checksum.OnePage()), 0x7FFE, 4)
