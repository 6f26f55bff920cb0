"""PostgresDocuments: documents in PostgreSQL; they survive a power cut, or the loss of the primary.

Every method is one statement in a transaction of its own, under READ COMMITTED, and one round trip.

A commit takes an advisory lock for each key that it reads or writes, so also for a key that nothing is stored under:
there is no row that could be locked. Only then does it judge, by a statement of a VOLATILE PL/pgSQL function, which
sees all that was committed before it began; and a transaction's locks are let go of after its commit can be seen. So
of two commits that name a key in common, the second judges what the first has left. Locks are taken in the order of
their numbers, and by nobody who holds any other: there is no deadlock.

The sweep takes no such lock. It removes rows that are free and expired when it has them; a commit that has judged such
a row is then as one that came before the sweep.
"""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import Any, Final, LiteralString

from coatcheck.documents import Values, check_keys, check_writes, page_bounds
from coatcheck.stores.encoding import document_key, protect, unprotect
from coatcheck.stores.postgres_place import PostgresPlace
from coatcheck.stores.postgres_tables import DOCUMENTS

_CHUNK = 500

_GET: Final = "SELECT key, value FROM coatcheck_document WHERE key = ANY ($1::bytea[])"
_COMMIT: Final = "SELECT coatcheck_commit($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint)"
_NOTE: Final = "SELECT coatcheck_note($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint)"
_PAGE: Final = """
    SELECT key, value FROM coatcheck_document WHERE expires_at IS NULL AND key >= $1 AND key < $2 ORDER BY key LIMIT $3
"""
_SWEEP: Final = """
    WITH expired AS (
        SELECT key FROM coatcheck_document WHERE expires_at BETWEEN $1 AND $2
        ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM coatcheck_document USING expired WHERE coatcheck_document.key = expired.key
        RETURNING coatcheck_document.expires_at
    )
    SELECT count(*), max(expires_at) FROM removed
"""


class PostgresDocuments(PostgresPlace):
    """Documents in a schema of a PostgreSQL database of version 14 or newer, encoded in UTF8.

    Its durability is as `PostgresStore` explains; a note may also be lost when the server is killed.

    Args:
        url: as for `PostgresStore`.
        schema: the schema that holds our tables, a store's or a feed's as well; made if it is not there.
        connections: at most so many for each process, and for each event loop in it; beyond them, requests wait.
        timeout: how long a call may take, waiting for a connection included.

    Raises:
        ConfigurationError: one of these cannot be, or psycopg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "coatcheck",
        connections: int = 4,
        timeout: timedelta = timedelta(seconds=1),
    ) -> None:
        super().__init__(
            url, component="documents", migrations=DOCUMENTS, schema=schema, connections=connections, timeout=timeout
        )

    async def get(self, *keys: str) -> builtins.list[bytes | None]:
        """Return what is stored; see `Documents.get`."""
        check_keys(*keys)
        names = [key.encode() for key in keys]
        found: dict[bytes, bytes] = dict((await self._ask(_GET, (names,), again=True)).rows)
        return [unprotect(found[name], name) if name in found else None for name in names]

    async def commit(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap, durably; see `Documents.commit`."""
        return await self._write(_COMMIT, expected, writes, expires_at)

    async def note(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap, without waiting for the disk or a standby; see `Documents.note`."""
        return await self._write(_NOTE, expected, writes, expires_at)

    async def page(self, prefix: str, after: str = "", limit: int = 500) -> builtins.list[tuple[str, bytes]]:
        """Return documents in order; see `Documents.page`."""
        rows = (await self._ask(_PAGE, (*page_bounds(prefix, after, limit), limit), again=True)).rows
        return [(document_key(name), unprotect(value, name)) for name, value in rows]

    async def sweep(self, now: int) -> int:
        """Remove expired documents, some at a time; rows that others are writing are left; see `Documents.sweep`."""
        return await self._sweep(_SWEEP, now, _CHUNK)

    async def _write(self, query: LiteralString, expected: Values, writes: Values, expires_at: int | None) -> bool:
        check_writes(expected, writes, expires_at)
        answer = await self._ask(query, (*_columns(expected), *_columns(writes), expires_at))
        return bool(answer.rows[0][0])


def _columns(values: Values) -> tuple[builtins.list[bytes], builtins.list[Any]]:
    """Return keys and values as they are stored; a value with its checksum, so that no damaged one is as expected."""
    names = [key.encode() for key in values]
    stored = [
        value if value is None else protect(value, name) for name, value in zip(names, values.values(), strict=True)
    ]
    return names, stored
