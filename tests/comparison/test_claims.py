"""Every word of the table is proved by a test that exists, or was measured."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from coatcheck import Policy
from coatcheck.comparison import KINDS, Kind, Measured, Measurements, Report, as_json, report, taught
from coatcheck.comparison.claims import TAUGHT
from coatcheck.comparison.measuring import Spread

ROOT = Path(__file__).resolve().parents[2]
SEED_ROWS = ("what it is", "where stored", "security", "persistence", "use", "access scope")
MEASURED_ROWS = (
    "example",
    "bytes a request",
    "with 1 KiB of data",
    "look-ups a request",
    "CPU a request",
    "CPU, the first time",
    "refused elsewhere after",
    "script can read",
    "readable by its holder",
)


def made_up() -> Report:
    """A report of figures that nobody has measured."""
    found = Measured(
        header="Cookie: __Host-session=1abc…",
        bytes=92,
        bytes_with_data=1_700,
        look_ups=1.0,
        cpu_us=Spread(25.6, 24.0, 27.0),
        first_cpu_us=None,
        refused_ms=Spread(0.2, 0.1, 0.3),
        scripts_read=(),
        readable=(),
    )
    token = found._replace(
        first_cpu_us=Spread(71.4, 70.0, 73.0),
        refused_ms=Spread(24.6, 12.0, 40.0),
        scripts_read=("Bearer",),
        readable=("alg", "sub", "sid"),
    )
    kinds: dict[Kind, Measured] = {kind: token if kind == "bearer" else found for kind in KINDS}
    return report(Measurements(kinds, 2.0))


def test_every_test_that_the_table_names_exists() -> None:
    """A claim whose test was renamed or removed is a claim without a proof."""
    missing = []
    for proof in made_up().proofs:
        file, _, name = proof.partition("::")
        path = ROOT / file
        if not path.exists() or not re.search(rf"def {name}\(", path.read_text(encoding="utf-8")):
            missing.append(proof)
    assert missing == []


def test_every_cell_of_words_names_a_test_and_every_other_was_measured() -> None:
    found = made_up()
    assert tuple(row.title for row in found.words) == SEED_ROWS
    assert tuple(row.title for row in found.figures) == MEASURED_ROWS
    for row in (*found.words, *found.figures):
        assert list(row.cells) == list(KINDS)
        assert all(cell.text for cell in row.cells.values())
    assert [row.title for row in found.words for cell in row.cells.values() if not cell.proofs] == []
    assert all(each.proofs for each in (*found.gone, *found.left))


def test_the_words_need_no_measurement() -> None:
    assert taught() == made_up().words


def test_the_lifetimes_in_the_table_are_those_of_the_policy() -> None:
    policy = Policy()
    assert (policy.absolute, policy.idle) == (timedelta(days=30), timedelta(days=7))
    assert policy.access_lifetime == timedelta(minutes=15)
    for kind in KINDS:
        words = TAUGHT["persistence"][kind].words
        assert words.startswith("15 minutes" if kind in ("token_cookie", "bearer") else "30 days, or 7 without use")


def test_figures_are_told_in_words() -> None:
    cells = {row.title: row.cells for row in made_up().figures}
    assert cells["with 1 KiB of data"]["sealed"].text == "1,700"
    assert cells["CPU a request"]["session"].text == "26 µs"
    assert [cells["CPU, the first time"][kind].text for kind in ("session", "bearer")] == ["the same", "71 µs"]
    assert [cells["refused elsewhere after"][kind].text for kind in ("session", "bearer")] == ["under 1 ms", "25 ms"]
    assert cells["script can read"]["session"].text == "nothing: HttpOnly"
    assert cells["script can read"]["bearer"].text == "all of it, and so: sub, sid ..."
    assert cells["readable by its holder"]["session"].text == "nothing"


def test_what_is_said_of_the_trade_offs_are_the_figures() -> None:
    found = made_up()
    assert "26 µs of CPU here" in found.gone[0].here
    assert "71 µs the first time" in found.gone[0].here
    assert "25 ms after its session was ended" in found.gone[1].here
    assert "1,700 with 1 KiB" in found.left[0].here


def test_for_programs_it_is_plain_data() -> None:
    found = as_json(made_up())
    assert found["measured"]["bearer"]["first_cpu_us"] == {"median": 71.4, "low": 70.0, "high": 73.0}
    assert found["measured"]["session"]["first_cpu_us"] is None
    assert [row["row"] for row in found["rows"]] == [*SEED_ROWS, *MEASURED_ROWS]
    assert found["rows"][0]["cells"]["session"]["proofs"]
    assert found["rows"][-1]["cells"]["session"]["measured"] is True
