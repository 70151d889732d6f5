"""The grammar of options: round trips, edges, and only its own errors on anything else."""

import enum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vmm_reference import ConfigError
from vmm_reference._grammar import (
    Options,
    parse_affinity,
    parse_count,
    parse_cpu_set,
    parse_size,
    parse_toggle,
    parse_word,
    quote,
    split_top,
    unquote,
)

HOSTILE = st.one_of(st.text(max_size=40), st.text(alphabet='",[]@-=0123abcKMGT\0\n', max_size=40))
KEYS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(st.text())
@example('"')
@example('""')
@example("")
def test_unquote_undoes_quote(text):
    """Any text survives as a quoted value."""
    assert unquote(quote(text)) == text


@given(st.lists(st.text(), min_size=1))
def test_split_keeps_quoted_values_whole(texts):
    """Separators and brackets inside quotes are text."""
    assert [unquote(part) for part in split_top(",".join(map(quote, texts)))] == texts


@given(st.dictionaries(KEYS, st.text(), min_size=1))
def test_options_round_trip(values):
    """Keys with quoted values come back, each once, and nothing is left over."""
    options = Options("--x", ",".join(f"{key}={quote(value)}" for key, value in values.items()))
    assert {key: options.take(key, str, None) for key in values} == values
    options.finish({})
    assert [options.take(key, str, None) for key in values] == [None] * len(values)


@given(st.integers(0, 1 << 40), st.sampled_from([*"KMGTkmgt", ""]), st.sampled_from(["", "B", "iB"]))
def test_sizes(number, unit, suffix):
    """A number shifted by its unit, in either case, with or without B."""
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit.lower()]
    assert parse_size(f"{number}{unit}{suffix}") == number << shift


@pytest.mark.parametrize("text", ["", "M", "-1M", "1.5G", "1 G", "0x10", "1P", "1MM", "٣M", "9" * 21, "1M\n"])
def test_no_sizes(text):
    """What is no size is named, with an example of one."""
    with pytest.raises(
        ValueError, match=r"is not a size; write a whole number with K, M, G or T, such as 3584M$"
    ):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "²", "٣", "9" * 21, "9" * 5000])
def test_no_counts(text):
    """Only plain ASCII digits count, and not endlessly many."""
    with pytest.raises(ValueError, match=r"is not a number$"):
        parse_count(text)


@pytest.mark.parametrize(("text", "value"), [("on", True), ("TRUE", True), ("off", False), ("False", False)])
def test_toggles(text, value):
    """On and off in Cloud Hypervisor's four words."""
    assert parse_toggle(text) is value


@given(HOSTILE)
def test_toggles_refuse_the_rest(text):
    """Every other word is refused by name."""
    if text.lower() not in {"on", "off", "true", "false"}:
        with pytest.raises(ValueError, match="is neither on nor off"):
            parse_toggle(text)


class Fruit(enum.Enum):
    """Words of an option."""

    APPLE = "apple"
    PEAR = "pear"


@example("APPLE")
@given(HOSTILE | st.sampled_from(["apple", "pear"]))
def test_words(text):
    """A member by its value; any other word is refused with those there are."""
    read = parse_word(Fruit)
    if text in {"apple", "pear"}:
        assert read(text).value == text
    else:
        with pytest.raises(ValueError, match=r" is none of apple, pear$"):
            read(text)


@given(st.sets(st.integers(0, 65535), min_size=1, max_size=20))
def test_cpu_sets(cpus):
    """A list of numbers means the set; so does one number without brackets."""
    assert parse_cpu_set(f"[{','.join(map(str, cpus))}]") == cpus
    assert parse_cpu_set(str(min(cpus))) == {min(cpus)}


@given(st.integers(0, 65535), st.integers(0, 40))
def test_cpu_ranges(first, length):
    """A range has both its ends."""
    last = min(first + length, 65535)
    assert parse_cpu_set(f"[{first}-{last}]") == set(range(first, last + 1))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[0", "0]", "[3-]", "[-3]", "[3-1]", "[0,]", "[a]", "[65536]", "0,1", "[[0]]", "[1-2-3]"],
)
def test_no_cpu_sets(text):
    """Open brackets, open ranges, backward ranges and absurd numbers are refused."""
    with pytest.raises(ValueError, match="is not"):
        parse_cpu_set(text)


@given(
    st.dictionaries(
        st.integers(0, 253), st.frozensets(st.integers(0, 4095), min_size=1, max_size=8), min_size=1
    )
)
def test_affinity_round_trip(pinned):
    """VCPUs to host CPUs, as written for the inner command line."""
    parts = ",".join(f"{vcpu}@[{','.join(map(str, sorted(cpus)))}]" for vcpu, cpus in pinned.items())
    assert parse_affinity(f"[{parts}]") == pinned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0@[1]", "'0@[1]' is not a list such as [0@[1],1@[2-3]]"),
        ("[0]", "'0' has no '@' between vCPU and host CPUs"),
        ("[0@[1],0@[2]]", "vCPU 0 is named twice"),
        ("[x@[1]]", "'x' is not a number"),
        ("[0@[]]", "'' is not a number"),
    ],
)
def test_no_affinity(text, message):
    """Each mistake has its own message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        parse_affinity(text)
    assert str(caught.value) == message


def refusal(call, kind):
    """Return the error of `kind` that `call` raises, None when it raises nothing."""
    try:
        call()
    except kind as error:
        return error
    return None


@given(HOSTILE, st.sampled_from([parse_size, parse_toggle, parse_count, parse_cpu_set, parse_affinity]))
def test_parsers_raise_nothing_else(text, parse):
    """Any text is a value or a ValueError that says something."""
    error = refusal(lambda: parse(text), ValueError)
    assert error is None or str(error)


@given(HOSTILE)
def test_options_raise_nothing_else(text):
    """Any option text is taken apart or a ConfigError that names the option."""

    def take_apart():
        options = Options("--x", text)
        options.take("a", parse_size, 0)
        options.require("b")
        options.finish({"a": ""})

    error = refusal(take_apart, ConfigError)
    assert error is None or error.option.startswith("--x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path", "--disk: 'path' is not of the form key=value; `vmm run --help` lists the keys"),
        ("path=a,", "--disk: '' is not of the form key=value; `vmm run --help` lists the keys"),
        ("path=a,path=b", "--disk path: given twice ('a' and 'b')"),
        ('path="a', "--disk: quote is never closed (one inside a value is doubled) in 'path=\"a'"),
        ("path=[a", "--disk: bracket is never closed in 'path=[a'"),
        ("path=a]", "--disk: ']' at position 6 closes nothing in 'path=a]'"),
    ],
)
def test_malformed_options(text, message):
    """The whole message, with the option and what was written."""
    with pytest.raises(ConfigError) as caught:
        Options("--disk", text)
    assert str(caught.value) == message
