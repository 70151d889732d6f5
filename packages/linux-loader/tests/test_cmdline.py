"""The command line builder."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import Cmdline, CmdlineError, CmdlineTooLongError, ConfigurationError

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(st.text(max_size=40), st.integers(1, 60))
def test_text_is_taken_whole_or_not_at_all(text, capacity):
    """Any text either fits, printable, or raises and leaves the line as it was."""
    line = Cmdline(capacity=capacity)
    try:
        line.insert_str(text)
    except CmdlineError:
        assert str(line) == ""
    assert len(line.encode()) <= capacity
    assert line.encode()[-1:] == b"\0"
    assert line.encode().count(b"\0") == 1


@given(st.lists(st.tuples(printable, printable), max_size=6), printable)
def test_round_trip(pairs, init):
    """What a builder wrote is read back equal."""
    line = Cmdline()
    for key, value in pairs:
        try:
            line.insert(key, value)
        except CmdlineError:
            continue
    with contextlib.suppress(CmdlineError):
        line.insert_init_args(init)
    again = Cmdline(str(line))
    assert again == line
    assert str(again) == str(line)


@given(printable)
def test_values_survive_the_kernels_rules(value):
    """A value without double quotes comes back whole when split as next_arg does."""
    line = Cmdline("first")
    if '"' in value:
        with pytest.raises(CmdlineError):
            line.insert("key", value + "x")
        return
    line.insert("key", value)
    assert len(line.boot_args) == 2
    assert line.boot_args[1].removeprefix("key=").strip('"') == value


def test_insert():
    """Keys, quoted values, lists, flags and virtio-mmio devices."""
    line = Cmdline("quiet")
    line.insert("console", "ttyS0,115200")
    line.insert("note", "two words")
    line.insert_multiple("isolcpus", ["1", "2"])
    line.insert_flag("nokaslr")
    line.insert_virtio_mmio(4096, 0xD000_0000, 5)
    line.insert_virtio_mmio(3 << 20, 0xD000_1000, 6, 1)
    line.insert_virtio_mmio(513, 0, 0)
    line.insert_init_args("single -- more")
    assert str(line) == (
        'quiet console=ttyS0,115200 note="two words" isolcpus=1,2 nokaslr '
        "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=3M@0xd0001000:6:1 "
        "virtio_mmio.device=513@0x0:0 "
        "-- single -- more"
    )
    assert line.init_args == ("single", "--", "more")


def test_the_separator_inside_quotes_is_text():
    """Only a bare -- separates."""
    line = Cmdline('a="x -- y"  b -- init')
    assert line.boot_args == ('a="x -- y"', "b")
    assert line.init_args == ("init",)


@pytest.mark.parametrize("key", ["", "a b", "a=b", 'a"', "ü", "a\n", "a\0"])
def test_bad_keys(key):
    """A key the kernel would split or misread is refused."""
    line = Cmdline("x")
    with pytest.raises(CmdlineError):
        line.insert(key, "v")
    assert str(line) == "x"


def test_capacity_counts_the_nul():
    """A line of exactly the capacity minus one fits."""
    line = Cmdline("1234567", capacity=8)
    with pytest.raises(CmdlineTooLongError, match="10 bytes with the final NUL, but at most 8") as caught:
        line.insert_flag("x")
    assert (caught.value.length, caught.value.capacity) == (10, 8)
    assert str(line) == "1234567"
    with pytest.raises(ConfigurationError, match="0 bytes cannot hold"):
        Cmdline(capacity=0)


def test_refusals():
    """Unbalanced quotes, empty lists, the separator as a flag, and impossible devices."""
    line = Cmdline()
    with pytest.raises(CmdlineError, match="never closed"):
        line.insert_str('a="b')
    with pytest.raises(CmdlineError, match="at least one value"):
        line.insert_multiple("k", [])
    with pytest.raises(CmdlineError, match="insert_init_args"):
        line.insert_flag("--")
    with pytest.raises(CmdlineError, match="no escape"):
        line.insert("k", 'a"b"c')
    with pytest.raises(ConfigurationError, match="size 0"):
        line.insert_virtio_mmio(0, 0, 5)
    with pytest.raises(CmdlineError, match=r"'\\t' is not printable"):
        line.insert_str("a\tb")
    assert str(line) == ""
    assert line != "x"
    assert "capacity=2048" in repr(line)
