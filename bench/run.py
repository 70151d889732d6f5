"""`make bench`: figures beside their yardsticks, printed as ratios and saved to bench/results.json.

Each figure is a module p*.py; bench/README.md says how each is measured and what bounds it.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
from harness import FEWEST_RUNS, Options, Row

HERE = Path(__file__).resolve().parent

FIGURES: Final = {
    "P1": "p1_queue",
    "P3": "p3_streams",
    "P4": "p4_memory",
    "P5": "p5_access",
    "P6": "p6_exits",
    "P7": "p7_python",
    "P8": "p8_start",
    "P9": "p9_boot",
}


def chosen(only: str) -> list[str]:
    """Return the figures that `only`, a list with commas, names; all of them when it is empty.

    Raises:
        ValueError: there is no such figure.
    """
    names = [name.strip().upper() for name in only.split(",") if name.strip()]
    unknown = sorted(set(names) - set(FIGURES))
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    return [name for name in FIGURES if name in names] if names else list(FIGURES)


def measure(names: Sequence[str], options: Options) -> list[Row]:
    """Measure `names`, printing each row; what this machine cannot measure becomes a row that says so."""
    rows: list[Row] = []
    for name in names:
        new: list[Row] = importlib.import_module(FIGURES[name]).run(options)
        for row in new:
            print(row.line(), flush=True)
        rows += new
    return rows


def save(rows: Sequence[Row], file: Path) -> None:
    """Write `rows` as a list of objects; rows of figures that were not measured now stay."""
    try:
        kept = [old for old in json.loads(file.read_text()) if old["id"] not in {row.id for row in rows}]
    except (OSError, ValueError, TypeError, KeyError):
        kept = []
    new = [attrs.asdict(row) for row in rows]
    ordered = sorted([*kept, *new], key=lambda row: str(row["id"]))
    file.write_text(json.dumps(ordered, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the toolkit beside its yardsticks.")
    parser.add_argument("--only", default="", metavar="P1,P6", help=f"some of {', '.join(FIGURES)}")
    parser.add_argument(
        "--rounds", type=int, default=Options().rounds, help="rounds of the short ones (%(default)s)"
    )
    parser.add_argument(
        "--boots", type=int, default=Options().boots, help="rounds of the boots (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="see that everything runs: figures mean nothing")
    words = parser.parse_args()
    options = Options(1, 1, 50) if words.quick else Options(words.rounds, words.boots)
    try:
        names = chosen(words.only)
    except ValueError as error:
        parser.error(str(error))
    if min(options.rounds, options.boots) < FEWEST_RUNS and not words.quick:
        print(f"bench: fewer than {FEWEST_RUNS} runs: no figure, only a hint", file=sys.stderr)
    rows = measure(names, options)
    save(rows, HERE / "results.json")
    counts = {status: sum(row.status == status for row in rows) for status in ("met", "missed", "missing")}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"bench: {summary}; saved to bench/results.json")
    return 0


if __name__ == "__main__":
    os.chdir(HERE.parent)
    sys.exit(main())
