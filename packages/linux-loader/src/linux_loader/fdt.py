"""Flattened device trees: a writer and a reader (Devicetree Specification 0.4).

A tree is made of `FdtNode` values and written by `Fdt.encode`; `parse_fdt` reads a blob back, and
`platform_tree` makes the tree of a machine from its description.
"""

from linux_loader._fdt_platform import platform_tree
from linux_loader._fdt_reader import MAX_BLOB, parse_fdt
from linux_loader._fdt_tree import MAX_DEPTH, MAX_NAME, Fdt, FdtNode, strings, u32s, u64s

__all__ = (
    "MAX_BLOB",
    "MAX_DEPTH",
    "MAX_NAME",
    "Fdt",
    "FdtNode",
    "parse_fdt",
    "platform_tree",
    "strings",
    "u32s",
    "u64s",
)
