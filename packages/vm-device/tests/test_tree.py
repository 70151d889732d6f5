"""The device tree."""

import pytest
from vm_device import DeviceTree, DeviceTreeError


def test_order_and_parents():
    """Parents come first, reversed order closes children first."""
    tree = DeviceTree()
    for id_, parent in (("pci0", None), ("disk0", "pci0"), ("com1", None), ("nic0", "pci0")):
        tree.add(id_, id_.upper(), parent=parent)
    assert list(tree) == ["pci0", "disk0", "com1", "nic0"]
    assert list(reversed(tree)) == ["nic0", "com1", "disk0", "pci0"]
    assert tree.children() == ("pci0", "com1")
    assert tree.children("pci0") == ("disk0", "nic0")
    assert (tree.parent("nic0"), tree.parent("com1"), tree.get("nic0"), len(tree)) == (
        "pci0",
        None,
        "NIC0",
        4,
    )
    assert "nic0" in tree
    assert tree.remove("nic0") == "NIC0"
    assert "nic0" not in tree


def test_refusals():
    """Each mistake names the id and the cure; nothing changes."""
    tree = DeviceTree()
    tree.add("bus", 1)
    tree.add("dev", 2, parent="bus")
    for call, message in (
        (lambda: tree.add("dev", 3), "'dev': is already in use"),
        (lambda: tree.add("", 3), "must not be empty"),
        (lambda: tree.add("x", 3, parent="y"), "its parent 'y' does not exist"),
        (lambda: tree.remove("bus"), "still has children dev"),
        (lambda: tree.get("x"), "unknown; known ids: bus, dev"),
    ):
        with pytest.raises(DeviceTreeError, match=message):
            call()
    assert list(tree) == ["bus", "dev"]
