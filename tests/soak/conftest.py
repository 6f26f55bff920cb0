"""Long tests with figures, run by `make soak` only. COATCHECK_SOAK_MINUTES says how long they take in all.

Each test goes on until it has reached the figure that was promised, or its share of the time is over; the table at the
end says how far it came.
"""

from __future__ import annotations

import pytest
from postgres_server import make, own_server, schema, server
from processes import spawn, together
from rivals import coat_of, new_store
from sites import proxied_cluster, site
from soaking import FIGURES, Soak
from valkey_server import prefix

# Fixtures: pytest finds them by these names.
__all__ = [
    "coat_of",
    "make",
    "new_store",
    "own_server",
    "prefix",
    "proxied_cluster",
    "schema",
    "server",
    "site",
    "spawn",
    "together",
]


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Soak:
    named = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return Soak(str(named.get("kind") or named.get("store") or named.get("where")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIGURES:
        return
    terminalreporter.section("figures")
    widths = [max(len(row[column]) for row in FIGURES) for column in (0, 1)]
    for what, count, result in FIGURES:
        terminalreporter.write_line(f"{what:{widths[0]}}  {count:>{widths[1]}}  {result}")
