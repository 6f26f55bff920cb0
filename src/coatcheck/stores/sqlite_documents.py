"""SQLiteDocuments: documents in one SQLite file, shared by the processes of one machine; they survive a power cut.

Keys are octets, so that they sort by them. Values carry a checksum that is bound to their key.
"""

from __future__ import annotations

import builtins
import os
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from coatcheck.documents import Values, check_keys, check_writes, page_bounds
from coatcheck.errors import StoreUnavailable
from coatcheck.run import offload
from coatcheck.store import Durability
from coatcheck.stores.encoding import document_key, protect, unprotect
from coatcheck.stores.group_commit import Weight
from coatcheck.stores.sqlite_file import Migration, SQLiteFile

_MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        """
        CREATE TABLE coatcheck_document (
            number INTEGER PRIMARY KEY,
            key BLOB NOT NULL UNIQUE,
            expires_at INTEGER,
            value BLOB NOT NULL
        ) STRICT
        """,
        # Those that stay, for `page`: it does not pass through a million attempts to sign in.
        "CREATE INDEX coatcheck_document_lasting ON coatcheck_document (key) WHERE expires_at IS NULL",
        "CREATE INDEX coatcheck_document_expires_at ON coatcheck_document (expires_at) WHERE expires_at IS NOT NULL",
    ),
)

_GET: Final = "SELECT key, value FROM coatcheck_document WHERE key IN ({})"
_PUT: Final = """
    INSERT INTO coatcheck_document (key, expires_at, value) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at, value = excluded.value
"""
_REMOVE: Final = "DELETE FROM coatcheck_document WHERE key = ?"
_PAGE: Final = """
    SELECT key, value FROM coatcheck_document
    WHERE expires_at IS NULL AND key >= ? AND key < ? ORDER BY key LIMIT ?
"""
_SWEEP: Final = """
    DELETE FROM coatcheck_document WHERE number IN (
        SELECT number FROM coatcheck_document WHERE expires_at <= ? LIMIT ?
    )
"""


class SQLiteDocuments:
    """Documents in one SQLite file: reads are done directly, in microseconds; writes by one thread.

    The file may be a store's or a feed's as well. A commit that only removes is done on a full disk too.

    Args:
        path: the file; made if it is not there, readable by nobody else. Not on a network file system.
        busy_timeout: how long another process's transaction is waited for.

    Raises:
        ConfigurationError: the path or the time-out cannot be one, or the SQLite library is too old.
    """

    durability: Durability = "power-safe"

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: timedelta = timedelta(seconds=1)) -> None:
        self.path = Path(os.path.abspath(path))
        self._file = SQLiteFile(path, busy_timeout=busy_timeout, component="documents", migrations=_MIGRATIONS)

    async def open(self) -> None:
        """Make the file and the schema; see `Documents.open`."""
        await offload(self._file.open)

    async def close(self) -> None:
        """End the writing thread and close the connections; see `Documents.close`."""
        await self._file.end()

    async def get(self, *keys: str) -> builtins.list[bytes | None]:
        """Return what is stored; see `Documents.get`."""
        check_keys(*keys)
        names = [key.encode() for key in keys]
        found = self._file.read(lambda c: _values(c, names))
        return [_content(name, found[name]) if name in found else None for name in names]

    async def commit(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap, durably; see `Documents.commit`."""
        removing = all(value is None for value in writes.values())
        return await self._write(expected, writes, expires_at, Weight.FINAL if removing else Weight.DURABLE)

    async def note(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap; a power cut may undo it; see `Documents.note`."""
        return await self._write(expected, writes, expires_at, Weight.LIGHT)

    async def page(self, prefix: str, after: str = "", limit: int = 500) -> builtins.list[tuple[str, bytes]]:
        """Return documents in order; see `Documents.page`."""
        start, end = page_bounds(prefix, after, limit)
        rows = self._file.read(lambda c: c.execute(_PAGE, (start, end, limit)).fetchall())
        return [(document_key(name), _content(name, value)) for name, value in rows]

    async def sweep(self, now: int) -> int:
        """Remove expired documents, some at a time, so that no other writer waits long; see `Documents.sweep`."""
        return await self._file.sweep(_SWEEP, now)

    async def _write(self, expected: Values, writes: Values, expires_at: int | None, weight: Weight) -> bool:
        check_writes(expected, writes, expires_at)
        known, new = _stored(expected), _stored(writes)

        def work(connection: sqlite3.Connection) -> bool:
            # As stored, checksum included: a damaged one is never what was expected.
            found = _values(connection, list(known))
            if any(found.get(name) != value for name, value in known.items()):
                return False
            for name, value in new.items():
                if value is None:
                    connection.execute(_REMOVE, (name,))
                else:
                    connection.execute(_PUT, (name, expires_at, value))
            return True

        return await self._file.written(work, weight)


def _stored(values: Values) -> dict[bytes, bytes | None]:
    names = {key.encode(): value for key, value in values.items()}
    return {name: None if value is None else protect(value, name) for name, value in names.items()}


def _values(connection: sqlite3.Connection, names: builtins.list[bytes]) -> dict[bytes, Any]:
    """Return what is stored under the names, by one statement: as of one moment."""
    return dict(connection.execute(_GET.format(",".join("?" * len(names))), names).fetchall())


def _content(name: Any, value: Any) -> bytes:
    if type(name) is not bytes or type(value) is not bytes:  # a damaged page can hold values of any type
        raise StoreUnavailable("store damaged: a document's columns")
    return unprotect(value, name)
