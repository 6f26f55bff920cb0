"""The page of benchmarks shows what was recorded, and the suite computes what the page says it does."""

from __future__ import annotations

import asyncio
import operator
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest
from suite import aims, generator, page, plots, results, svg
from suite.clocks import backwards
from suite.harness import Case, Spread, Timing, measure, over, ratio, short

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECORDED: Final = results.recorded()


# -- the page


def test_the_page_shows_the_recorded_results_and_the_verdicts_on_them() -> None:
    shown = page.PAGE.read_text(encoding="utf-8")
    assert page.shown(shown, RECORDED) == shown


def test_the_plots_are_those_of_the_recorded_results_and_the_page_shows_them() -> None:
    drawn = plots.drawn(RECORDED)
    on_page = re.findall(r"\(images/(bench-[a-z-]+)\.svg\)", page.PAGE.read_text(encoding="utf-8"))
    assert set(drawn) == set(on_page) == {path.stem for path in page.IMAGES.glob("bench-*.svg")}
    for name, drawing in drawn.items():
        assert (page.IMAGES / f"{name}.svg").read_text(encoding="utf-8") == drawing


def test_what_the_page_and_the_sizing_stand_on_is_recorded() -> None:
    found = {path.stem for path in results.RESULTS.glob("*.json")}
    assert found == {path.stem for path in BENCHMARKS.glob("*.py")}


def test_no_table_of_the_page_is_without_a_result() -> None:
    places = set(re.findall(r"<!-- ([^>]+) -->", page.PAGE.read_text(encoding="utf-8"))) - {"end", "aims"}
    assert places == set(RECORDED)


# -- the aims


def table(name: str, columns: list[str], *rows: list[Any]) -> results.Table:
    return results.Table({"name": name, "columns": columns, "rows": rows})


FAKE: Final = {"t": table("t", ["", "a"], ["ours", 30.0], ["one", {"median": 90, "low": 80, "high": 95}], ["two", 60])}


@pytest.mark.parametrize(
    ("measured", "judge", "limit", "row"),
    [
        (aims.figure("t", "ours", "a"), operator.le, 30, ["words: ≤ 30 µs", "30.0 µs", "met", ""]),
        (aims.figure("t", "ours", "a"), operator.lt, 30, ["words: < 30 µs", "30.0 µs", "**missed**", "caches"]),
        (aims.figure("t", "ours", "a"), operator.ge, 31, ["words: ≥ 31 µs", "30.0 µs", "**missed**", "caches"]),
        (aims.share("t", "ours", "a", "one", "two"), operator.le, 0.5, ["words: ≤ 0.5 µs", "0.50 µs", "met", ""]),
        (aims.growth("t", "ours", "a"), operator.le, 1, ["words: ≤ 1 µs", "2,900 µs", "**missed**", "caches"]),
        (aims.figure("t", "nobody", "a"), operator.le, 1, ["words: ≤ 1 µs", "–", "not recorded", ""]),
    ],
)
def test_an_aim_is_met_by_what_was_recorded_or_says_why_not(
    measured: aims.Measure, judge: aims.Judge, limit: float, row: list[str]
) -> None:
    assert aims.Aim("words", measured, judge, limit, " µs", "caches").row(FAKE) == row


def test_each_aim_finds_its_figure_and_has_a_reason_to_give() -> None:
    assert [row for row in aims.judged(RECORDED) if row[2] == "not recorded"] == []
    assert {aim.reason for aim in aims.AIMS} <= set(aims.REASONS)
    assert aims.reasons([["", "", "", "caches"]]).startswith("- *caches*: ")


# -- measuring


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


def test_a_clock_that_goes_back_never_shows_the_same_moment_again() -> None:
    clock = backwards()
    moments = [clock() for _ in range(100)]
    assert moments == sorted(set(moments), reverse=True)


# -- the load generator


def serve_once(answers: Callable[[int], bytes]) -> tuple[int, list[bytes]]:
    """Answer one connection, in pieces, and return the port and what was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def run() -> None:
        with listener, listener.accept()[0] as connection, suppress(OSError):  # it is left in the middle
            while data := connection.recv(1000):
                asked.append(data)
                answer = answers(len(asked))
                for piece in (answer[:20], answer[20:]):
                    connection.sendall(piece)

    threading.Thread(target=run, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port, asked


def test_the_load_generator_counts_whole_answers() -> None:
    port, asked = serve_once(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann")
    answers, taken = generator.turn(port, [b"GET / HTTP/1.1\r\n\r\n"], 0.05)
    assert answers >= 1
    assert answers <= len(asked) <= answers + 1
    assert taken >= 0.05


@pytest.mark.parametrize("answer", [b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_the_load_generator_ends_when_an_answer_is_not_what_is_to_be_counted(answer: bytes) -> None:
    port, _ = serve_once(lambda _: answer)
    with pytest.raises(SystemExit):
        generator.turn(port, [b"GET / HTTP/1.1\r\n\r\n"], 5)


# -- plots

SVG: Final = "{http://www.w3.org/2000/svg}"
ROWS: Final = [
    svg.Row("ours <1>", True, [Spread(10, 9, 12), Spread(20, 19, 21)]),
    svg.Row("theirs", False, [Spread(40, 39, 41), Spread(21, 20, 22)]),
]


def drawn(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - of our own making


def test_bars_are_as_long_as_their_figures() -> None:
    drawing = drawn(svg.bars("title", "unit", ROWS))
    lengths = {bar.get("class"): float(bar.get("width", 0)) for bar in drawing.iter(f"{SVG}rect")}
    assert lengths["other"] == pytest.approx(4 * lengths["ours"], rel=0.01)


def test_lines_begin_at_zero_and_no_two_labels_lie_upon_each_other() -> None:
    drawing = drawn(svg.lines("title", "unit", ["1", "2"], "steps", ROWS))
    heights = [
        [svg.TOP + svg.PLOT - float(point.split(",")[1]) for point in line.get("points", "").split()]
        for line in drawing.iter(f"{SVG}polyline")
    ]
    assert heights[1][0] == pytest.approx(4 * heights[0][0], rel=0.01)
    labels = {text.text: float(text.get("y", 0)) for text in drawing.iter(f"{SVG}text")}
    assert labels["ours <1>"] - labels["theirs"] >= 16


def test_a_plot_is_for_light_and_for_dark() -> None:
    names = re.findall(r"--([a-z0-9]+):", svg.STYLE)
    used = re.findall(r"var\(--([a-z0-9]+)\)", svg.STYLE)
    assert set(used) <= set(names)
    assert all(names.count(name) == 2 for name in names)
