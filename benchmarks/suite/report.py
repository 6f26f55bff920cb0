"""Results: printed, and with `--record` kept as benchmarks/results/NAME.json and shown in docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from types import MappingProxyType

from suite import page, results

Cell = results.Cell
text = page.text


@dataclass(frozen=True)
class Table:
    """A table: its name in the page, its columns, and its rows."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def publish(
    name: str,
    tables: Sequence[Table],
    *,
    libraries: Sequence[str] = (),
    more: Mapping[str, str] = MappingProxyType({}),
    record: bool,
) -> None:
    """Print tables; if they are to be recorded, write them into the results and the page as well.

    Args:
        name: the benchmark's.
        tables: what it found.
        libraries: the packages whose versions belong to the result.
        more: versions of what is no package of this environment.
        record: whether this run is one to be shown.
    """
    for table in tables:
        rows = [list(row) for row in table.rows]
        print(f"\n{table.name}\n\n{page.markdown(list(table.columns), rows)}", flush=True)
    if not record:
        return
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "libraries": {**{library: version(library) for library in libraries}, **more},
        "tables": [asdict(table) for table in tables],
    }
    results.RESULTS.mkdir(exist_ok=True)
    (results.RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page.renew()
