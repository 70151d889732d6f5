"""The mapping below a region."""

import os

import pytest
from vmm_memory import MappingError
from vmm_memory._mapping import Mapping, make_memfd

PAGE = 4096


def test_views_of_shared_memory_agree():
    """Two mappings of one memfd show the same bytes; a private one keeps its own."""
    fd = make_memfd("twice", PAGE, None)
    first, second, private = (Mapping(PAGE, 0, fd=fd, shared=shared) for shared in (True, True, False))
    os.close(fd)
    memoryview(first.export())[:4] = b"both"
    memoryview(private.export())[:4] = b"mine"
    assert [bytes(memoryview(mapping.export())[:4]) for mapping in (second, private)] == [b"both", b"mine"]


def test_read_only_mapping_is_prefaulted_by_reading():
    """A mapping that cannot be written can be backed all the same."""
    fd = make_memfd("ro", PAGE, None)
    mapping = Mapping(PAGE, 0, fd=fd, shared=True, read_only=True)
    os.close(fd)
    mapping.prefault()
    assert bytes(memoryview(mapping.export())[:8]) == bytes(8)


def test_offset_past_what_mmap_takes():
    """The kernel's refusal names fd and offset."""
    fd = make_memfd("odd", PAGE, None)
    with pytest.raises(
        MappingError, match=rf"mmap of 0x1000 bytes \(fd {fd}, offset 0x7\): Invalid argument"
    ):
        Mapping(PAGE, 0, fd=fd, offset=7, shared=True)
    os.close(fd)


def test_memfd_of_an_impossible_name():
    """memfd_create's refusal shows the name."""
    with pytest.raises(MappingError, match=r"memfd_create\('n{300}'\): Invalid argument"):
        make_memfd("n" * 300, PAGE, None)
