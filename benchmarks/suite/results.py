"""What was recorded, as the page, the plots and the judgement on the aims read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from suite.harness import Spread

RESULTS: Final = Path(__file__).resolve().parents[2] / "benchmarks" / "results"

Cell = str | int | float | Spread | None


class Table:
    """A recorded table: a cell is found by the first cell of its row, and the head of its column."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self.name: str = stored["name"]
        self.columns: list[str] = stored["columns"]
        self.rows: list[list[Cell]] = [[cell(one) for one in row] for row in stored["rows"]]

    @property
    def names(self) -> list[str]:
        """The first cells."""
        return [str(row[0]) for row in self.rows]

    def spread(self, row: str, column: str) -> Spread:
        """Return a figure.

        Raises:
            KeyError: it was not recorded.
        """
        try:
            found = self.rows[self.names.index(row)][self.columns.index(column)]
        except ValueError:
            raise KeyError(f"{self.name}: {row}, {column}") from None
        if isinstance(found, Spread):
            return found
        if isinstance(found, int | float):
            return Spread(found, found, found)
        raise KeyError(f"{self.name}: {row}, {column}")

    def __call__(self, row: str, column: str) -> float:
        """Return a figure's median."""
        return self.spread(row, column).median


def cell(stored: Any) -> Cell:
    """Return a cell as it was before it was stored."""
    return Spread(**stored) if isinstance(stored, dict) else stored


def recorded(folder: Path = RESULTS) -> dict[str, Table]:
    """Return every recorded table, by its name."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {stored["name"]: Table(stored) for file in files for stored in file["tables"]}
