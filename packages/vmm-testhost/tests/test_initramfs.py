"""The archive of one run."""

import re

from hypothesis import given
from hypothesis import strategies as st
from vmm_testhost._initramfs import run_archive

arguments = st.lists(st.text(st.characters(exclude_characters="\0", codec=None), max_size=20), max_size=4)


@given(arguments, st.dictionaries(st.text("ABC_", min_size=1), st.text(max_size=20), max_size=3))
def test_description_reads_back_equal(argv, env):
    """The agent reads exactly the arguments and variables that were given, surrogates included."""
    archive = run_archive("", {"ARGV": argv, "ENV": env, "TTY": b"\x01\n"})
    text = re.search(rb"ARGV = .*?\nENV = .*?\nTTY = .*?\n", archive)
    assert text is not None
    found = {}
    exec(text.group().decode("ascii"), found)
    assert (found["ARGV"], found["ENV"], found["TTY"]) == (argv, env, b"\x01\n")
