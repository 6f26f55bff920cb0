"""Tables: printed, and with `--record` kept as benchmarks/results/NAME.json and shown in docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from suite.harness import Spread, short

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"

Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """A table: its name in the page, its columns, and its rows."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def publish(name: str, tables: Sequence[Table], *, libraries: Sequence[str] = (), record: bool) -> None:
    """Print tables; if they are to be recorded, write them into the results and the page as well.

    Args:
        name: the benchmark's.
        tables: what it found.
        libraries: the packages whose versions belong to the result.
        record: whether this run is one to be shown.
    """
    for table in tables:
        print(f"\n{table.name}\n\n{markdown(table)}", flush=True)
    if not record:
        return
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "libraries": {library: version(library) for library in libraries},
        "tables": [asdict(table) for table in tables],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    for table in tables:
        page = _shown(page, table)
    PAGE.write_text(page, encoding="utf-8")


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *([text(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(cell: Cell) -> str:
    """Return a cell as it is shown."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return short(cell)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _shown(page: str, table: Table) -> str:
    begin, end = f"<!-- {table.name} -->\n", "<!-- end -->"
    place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not place.search(page):
        raise ValueError(f"docs/benchmarks.md has no place for {table.name!r}")
    return place.sub(lambda _: f"{begin}{markdown(table)}\n{end}", page)
