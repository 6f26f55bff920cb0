"""docs/benchmarks.md: its tables, its plots and its judgement on the aims, from what was recorded.

python -m suite.page      writes them anew, in the folder `benchmarks`; nothing is measured
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from suite import plots
from suite.aims import judged, reasons
from suite.harness import short
from suite.results import Cell, Table, recorded

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"
_AIM_COLUMNS: Final = ["aim", "measured", "", "why not"]


def renew() -> None:
    """Write everything on the page that comes from results."""
    tables = recorded()
    PAGE.write_text(shown(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    for name, drawing in plots.drawn(tables).items():
        (IMAGES / f"{name}.svg").write_text(drawing, encoding="utf-8")


def shown(page: str, tables: Mapping[str, Table]) -> str:
    """Return the page with these results."""
    for table in tables.values():
        page = _placed(page, table.name, markdown(table.columns, table.rows))
    verdicts = judged(tables)
    return _placed(page, "aims", f"{markdown(_AIM_COLUMNS, verdicts)}\n\n{reasons(verdicts)}")


def markdown(columns: list[str], rows: list[list[Cell]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def text(cell: Cell) -> str:
    """Return a cell as it is shown."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return short(cell)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _placed(page: str, name: str, shown: str) -> str:
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not place.search(page):
        raise ValueError(f"docs/benchmarks.md has no place for {name!r}")
    return place.sub(lambda _: f"{begin}{shown}\n{end}", page)


if __name__ == "__main__":
    renew()
