"""Fixtures that every floor's tests may use."""

from __future__ import annotations

import pytest
from postgres_server import own_postgres, postgres
from valkey_server import cluster, valkey

# Before anybody imports it: its assertions then say what was compared.
pytest.register_assert_rewrite("coatcheck.testing.contract", "coatcheck.testing.documents", "coatcheck.testing.feeds")
pytest.register_assert_rewrite("cancellations", "crashes", "failovers", "ledger", "outages", "rivals", "ticks")

# Fixtures, by these names: here, so that each of these servers is started once, whichever folders' tests ask for it.
__all__ = ["cluster", "own_postgres", "postgres", "valkey"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: it is what the servers that carry us run on."""
    return "asyncio"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long values by their argument: in some of them is a random key, and names must be every process's same."""
    return argname if isinstance(val, str | bytes) and len(val) > 40 else None
