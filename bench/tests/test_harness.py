"""The arithmetic of the benchmarks: medians, ratios, verdicts, what is saved. Nothing here is timed."""

import json
import math
import statistics
import sys

import attrs
import p1_queue
import p9_boot
import pytest
import run as bench
import tiny
from harness import Options, Served, compare, interleave, judge, spread
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = st.lists(st.floats(min_value=0.1, max_value=1e9), min_size=1, max_size=30)


@given(ours=SAMPLES, theirs=SAMPLES, goal=st.floats(min_value=0.1, max_value=10))
def test_the_verdict_is_about_medians(ours, theirs, goal):
    """A row's ratio is that of the medians; its status says whether that is on the goal's good side."""
    low = compare("P1", "work", ours, "peer", theirs, unit="ns", goal=goal)
    high = compare("P1", "work", ours, "peer", theirs, unit="ns", goal=goal, better="higher")
    ratio = statistics.median(ours) / statistics.median(theirs)
    assert math.isclose(low.ratio, ratio)
    assert low.status == ("met" if low.ratio <= goal else "missed")
    assert high.status == ("met" if high.ratio >= goal else "missed")


@pytest.mark.parametrize("peer", [None, []])
def test_a_missing_peer_is_missing(peer):
    """It never passes, and no ratio is made up."""
    row = compare("P1", "work", [1.0, 2.0], "peer", peer, unit="ns", goal=2.0)
    assert (row.status, row.ratio, row.yardstick) == ("missing", None, None)
    assert "missing" in row.line()


def test_an_allowance_is_added_to_the_yardstick():
    """P7 compares with the floor and 2 us on top."""
    row = compare("P7", "exit", [11_900.0], "floor", [10_000.0], unit="ns", goal=1.0, plus=2000.0)
    assert (row.yardstick, row.status) == (12_000.0, "met")


def test_no_goal_is_no_verdict():
    """A figure that is only shown is neither met nor missed."""
    assert judge(5.0, None, "lower") == "shown"


def test_the_spread_does_not_see_one_disturbed_run():
    """One run in nine that took a hundred times as long leaves it at 0; half of them do not."""
    assert spread([10.0] * 8 + [1000.0]) == 0
    assert spread([10.0] * 4 + [30.0] * 4) > 0.3
    assert spread([10.0]) == 0


def test_rounds_are_interleaved_and_the_first_does_not_count():
    """Everybody has a turn in each round; what came first is dropped."""
    turns = []

    def contender(name):
        def measure():
            turns.append(name)
            return float(len(turns))

        return measure

    times = interleave({"a": contender("a"), "b": contender("b")}, 3)
    assert turns == ["a", "b"] * 4
    assert times == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}


def test_a_served_contender_answers_line_by_line():
    """Numbers in, figures out; one that ends is an error, not a figure."""
    body = "print(2 * int(line), 0.5, flush=True)\n if line == '9\\n': break"
    twice = f"import sys\nfor line in sys.stdin:\n {body}"
    with Served([sys.executable, "-c", twice]) as served:
        assert served.ask(4) == [8.0, 0.5]
        assert served.ask(9) == [18.0, 0.5]
        with pytest.raises(RuntimeError, match="ended with status 0"):
            served.ask(1)


@pytest.mark.parametrize(
    ("best", "status"), [(37.0, "met"), (26.0, "met"), (50.0, "missed"), (20.0, "missed")]
)
def test_a_floor_that_is_none_is_told(best, status):
    """Best Rust / floor must be within 30 % of the reference table's, on either side."""
    work = next(work for work in p1_queue.WORKS if work.table is not None)
    row = p1_queue.floor_check(work, {p1_queue.BEST: [best], p1_queue.FLOOR: [10.5]})
    assert row.status == status
    assert p1_queue.floor_check(work, {p1_queue.FLOOR: [10.5]}).status == "missing"


def test_the_faster_qemu_is_the_yardstick():
    """Of two machines, the one with the smaller median, in each of the two figures by itself."""
    times = {"ours": [(3.0, 1.0)], p9_boot.FLOOR: [(2.0, 0.8)]}
    times |= {p9_boot.Q35: [(5.0, 4.0)], p9_boot.MICROVM: [(4.0, 4.5)]}
    rows = {(row.what.split(",")[0], row.yardstick_name): row for row in p9_boot.report(times)}
    assert rows["first KVM_RUN to userspace", p9_boot.FASTER].yardstick == 4.0
    assert rows["process start to userspace", p9_boot.FASTER].yardstick == 4.0
    assert rows["first KVM_RUN to userspace", p9_boot.FLOOR].status == "missed"
    assert rows["first KVM_RUN to userspace", p9_boot.FASTER].status == "met"


def test_without_qemu_its_rows_are_missing():
    """The floor is still compared with."""
    rows = p9_boot.report({"ours": [(3.0, 1.0)], p9_boot.FLOOR: [(2.0, 1.0)]})
    assert [row.status for row in rows if "QEMU" in row.yardstick_name] == ["missing"] * 6


def test_results_keep_what_was_not_measured_now(tmp_path):
    """A run of some figures replaces those and leaves the others; a broken file is replaced."""
    row = compare("P6", "exit", [1.0], "floor", [1.0], unit="ns", goal=1.02)
    file = tmp_path / "results.json"
    file.write_text("{broken")
    bench.save([row, attrs.evolve(row, id="P1")], file)
    bench.save([attrs.evolve(row, ours=2.0)], file)
    saved = json.loads(file.read_text())
    assert [(entry["id"], entry["ours"]) for entry in saved] == [("P1", 1.0), ("P6", 2.0)]
    needed = {"id", "what", "ours", "yardstick", "yardstick_name", "ratio", "unit", "better", "status"}
    assert needed <= set(saved[0])


def test_figures_are_chosen_by_name():
    """Some, all, or an error that names what there is."""
    assert bench.chosen("p6, P1") == ["P1", "P6"]
    assert bench.chosen("") == list(bench.FIGURES)
    with pytest.raises(ValueError, match="no figure P99"):
        bench.chosen("P99")


@given(count=st.integers(min_value=2, max_value=tiny.MOST), stamps=st.booleans())
def test_the_guest_jumps_where_it_should(count, stamps):
    """Its LOOP lands on the body, its JMP on the first byte; the count is in CX."""
    code = tiny.code(count, stamps=stamps)
    assert int.from_bytes(code[3:5], "little") == count
    loop = code.index(0xE2, 5)
    assert loop + 2 + code[loop + 1] - 256 == 5
    assert len(code) + code[-1] - 256 == 0


def test_work_is_at_least_one():
    """A smoke test divides, and still does something."""
    assert Options(1, 1, 50).work(500) == 10
    assert Options(1, 1, 50).work(7) == 1
