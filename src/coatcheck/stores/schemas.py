"""Schemas: which version of its tables each component has, in a store that has tables."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from coatcheck.run import offload
from coatcheck.store import Store
from coatcheck.stores.group_commit import FAILURES, unavailable
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.sqlite import SQLiteStore

Versions = dict[str, int]
"""By component: "store", "documents", "feed"; how many of its migrations have run."""

_QUERY: Final = "SELECT component, version FROM coatcheck_schema"


async def versions(store: Store) -> Versions:
    """Return what has been made so far where a store is; nothing where a store needs none.

    Raises:
        StoreUnavailable: it cannot be told.
    """
    if isinstance(store, SQLiteStore):
        path = store.path
        return await offload(lambda: _in_sqlite(path))
    if isinstance(store, PostgresStore):
        return await store.versions()
    return {}


def _in_sqlite(path: Path) -> Versions:
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'coatcheck_schema'").fetchall():
                return {}
            return dict(connection.execute(_QUERY).fetchall())
    except FAILURES as error:
        raise unavailable(error) from error
