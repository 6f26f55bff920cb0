"""`coatcheck compare`: a table that can be read in a terminal, JSON for programs, and no server needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from coatcheck.cli import compare as command
from coatcheck.cli.main import main
from coatcheck.comparison import KINDS, Measurements, measuring, revoking


@pytest.fixture(scope="module")
def measured() -> Iterator[Measurements]:
    """Measured once, and briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_CPU_SECONDS", 0.0)
        patch.setattr(measuring, "_FIRST_TOKENS", 4)
        patch.setattr(revoking, "ROUNDS", 2)
        yield measuring.compare()


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch, measured: Measurements) -> None:
    monkeypatch.setattr(command, "compare", lambda: measured)


@pytest.mark.parametrize(("terminal", "width"), [("40", 80), ("96", 96), ("200", 100)])
def test_the_table_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: str, width: int
) -> None:
    """80 to 100 columns; only the names of tests may be longer."""
    monkeypatch.setenv("COLUMNS", terminal)
    assert main(["compare"]) == 0
    printed = capsys.readouterr().out
    table, _, proofs = printed.partition("What was not measured")
    lines = table.splitlines()
    assert width - 5 <= max(map(len, lines)) <= width
    for words in ("what it is", "where", "persistence", "access", "look-ups", "Taught, and gone:", "Still true:"):
        assert any(line.startswith(words) for line in lines), words
    assert "tests/desks/test_sessions.py" in proofs


def test_every_mark_in_the_table_leads_to_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare"])
    table, _, proofs = capsys.readouterr().out.partition("What was not measured")
    listed = {line.split()[0] for line in proofs.splitlines() if line.startswith("    ")}
    marked = {number for part in table.split("[")[1:] for number in part.partition("]")[0].split(",")}
    assert marked == listed
    assert listed == {str(number) for number in range(1, len(listed) + 1)}


def test_for_programs_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["kinds"]) == list(found["measured"]) == list(KINDS)
    assert found["measured"]["session"]["look_ups"] == 1.0
    assert {"rows", "gone", "left", "where", "seconds"} <= set(found)


def test_it_needs_none_of_what_the_server_needs() -> None:
    """`pip install coatcheck` and nothing else is enough."""
    program = (
        "import sys\n"
        "import coatcheck.cli.compare\n"
        "print(*sorted(set(sys.modules) & {'starlette', 'jinja2', 'uvicorn', 'redis', 'psycopg', 'httpx2'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
