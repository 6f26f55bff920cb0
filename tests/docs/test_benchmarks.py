"""The page of benchmarks shows what was recorded, and the suite computes what the page says it does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from suite import report
from suite.harness import Case, Spread, Timing, measure, over, ratio, short

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


def cell(stored: Any) -> report.Cell:
    return Spread(**stored) if isinstance(stored, dict) else stored


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_the_recorded_result(result: Path) -> None:
    for table in json.loads(result.read_text(encoding="utf-8"))["tables"]:
        rows = [[cell(stored) for stored in row] for row in table["rows"]]
        shown = report.markdown(report.Table(table["name"], table["columns"], rows))
        page = report.PAGE.read_text(encoding="utf-8")
        assert f"<!-- {table['name']} -->\n{shown}\n<!-- end -->" in page


def test_what_the_page_and_the_sizing_stand_on_is_recorded() -> None:
    assert {"million", "overhead", "tokens"} <= {path.stem for path in RESULTS}


def test_cases_take_turns_and_the_first_round_does_not_count() -> None:
    done: list[str] = []

    def case(name: str) -> Case:
        async def work(times: int) -> None:
            done.extend(name * times)

        return Case(name, work, times=2)

    timings = asyncio.run(measure([case("a"), case("b")], rounds=3))
    assert "".join(done) == "aabb" * 4
    assert [len(timings[name]) for name in "ab"] == [3, 3]


def test_differences_and_ratios_are_taken_within_a_round() -> None:
    slow_machine = [Timing(cpu=30, wall=0), Timing(cpu=300, wall=0), Timing(cpu=30, wall=0)]
    bare = [Timing(cpu=10, wall=0), Timing(cpu=100, wall=0), Timing(cpu=10, wall=0)]
    assert over(slow_machine, bare).median == 20
    assert ratio(slow_machine, bare) == Spread(3, 3, 3)


def test_figures_have_as_many_digits_as_mean_something() -> None:
    assert [short(figure) for figure in (0.123, 9.994, 9.996, 99.94, 99.96, 1234.5)] == [
        "0.12", "9.99", "10.0", "99.9", "100", "1,234",
    ]  # fmt: skip
