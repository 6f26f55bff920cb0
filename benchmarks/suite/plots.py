"""The plots of docs/benchmarks.md, drawn from what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from suite.harness import Spread
from suite.results import Table
from suite.svg import Row, bars, lines

Tables = Mapping[str, Table]
OURS: Final = "coatcheck"
# What stands on another framework is compared with that, and is in the table.
_OTHER_STACKS: Final = ("Litestar", "Flask", "Django")


def overhead(tables: Tables) -> str:
    """Return the bars of a read with 16 in flight."""
    table = tables["overhead: CPU"]
    rows = [
        Row(name, name.startswith(OURS), [table.spread(name, "read, 16")])
        for name in table.names
        if not any(word in name for word in _OTHER_STACKS)
    ]
    return bars("What a read costs", "µs of CPU over the bare Starlette application, 16 requests in flight", rows)


def load(tables: Tables) -> str:
    """Return the bars of whole servers."""
    table = tables["load"]
    column = "of its requests a second of CPU"
    bare = {"Starlette", "Litestar", "Express", "Fastify"}
    rows = [Row(name, name.startswith(OURS), [table.spread(name, column)]) for name in table.names if name not in bare]
    return bars("What is left of a server", "share of the bare server's requests a second of CPU, under load", rows)


def in_flight(tables: Tables) -> str:
    """Return the lines of more and more users at a time."""
    table = tables["curves: in flight"]
    steps = table.columns[1:]
    rows = [Row(name, name.startswith(OURS), [table.spread(name, step) for step in steps]) for name in table.names]
    return lines("A read, with ever more in flight", "µs of CPU over the bare application", steps, "in flight", rows)


def revocations(tables: Tables) -> str:
    """Return the lines of more and more revocations."""
    return _grown(tables["curves: revocations"], "Verifying a token beside ever more revocations", "0", "revocations")


def sessions(tables: Tables) -> str:
    """Return the lines of more and more sessions."""
    return _grown(tables["curves: sessions"], "Finding a session among ever more", "1,000", "sessions")


def _grown(table: Table, title: str, first: str, along: str) -> str:
    steps = table.columns[2:]
    one = Spread(1, 1, 1)
    rows = [Row(name, True, [one, *(table.spread(name, step) for step in steps)]) for name in table.names]  # noqa: FBT003
    return lines(title, f"times the CPU with {first}", [first, *steps], along, rows)


PLOTS: Final[Mapping[str, tuple[str, Callable[[Tables], str]]]] = {
    "bench-overhead": ("overhead: CPU", overhead),
    "bench-load": ("load", load),
    "bench-in-flight": ("curves: in flight", in_flight),
    "bench-revocations": ("curves: revocations", revocations),
    "bench-sessions": ("curves: sessions", sessions),
}
"""The table that each is drawn from, and what draws it."""


def drawn(tables: Tables) -> dict[str, str]:
    """Return the plots of the tables that were recorded, by their files' names."""
    return {name: draw(tables) for name, (table, draw) in PLOTS.items() if table in tables}
