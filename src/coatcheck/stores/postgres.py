"""PostgresStore: records in PostgreSQL, shared by machines; it survives a power cut, or the loss of the primary.

Every method is one statement in a transaction of its own, under READ COMMITTED, and one round trip. That what was
ended stays ended rests on these, and on nothing else:

*One record.* `replace`, `touch`, `delete` and the sweep write rows that they find by id. Whoever comes second waits
for the first one's row lock, and PostgreSQL then judges its WHERE again on the row as the first has left it: of two
`replace` of one version, the second finds another version; after a `delete`, nothing.

*A subject's records.* A row lock cannot keep out a row that is not there yet. So `create` takes an advisory lock on
the subject, shared, and `revoke_subject` takes it exclusively, as the first statement of a PL/pgSQL function that is
VOLATILE: there, under READ COMMITTED, each statement sees all that was committed before it began ("Function Volatility
Categories" in PostgreSQL's manual). A transaction's locks are let go of after its commit can be seen. Hence, of a
`create` and a `revoke_subject` of the same subject, one has the lock first:

- `create`: its row is committed when `revoke_subject` gets the lock. The DELETE, which begins afterwards, sees it.
- `revoke_subject`: its cut-off is committed when `create` gets the lock. The look-up, which begins afterwards, sees it.

With the lock and the look-up in one statement the second would be wrong: that statement's view would be older than
its lock.

*Writes of one tick.* The `replace` of one tick of an event loop are one statement and one commit, and so are its
`touch`: an UPDATE for each in a function that is VOLATILE, so each is judged as if it were alone, and after those
before it. If what one of them is makes the server undo them all, each is tried by itself.

*No deadlocks.* Whoever waits for an advisory lock holds nothing. Whoever wants several rows takes them in the order of
their ids: the writes of one tick, and `revoke_subject`. `create` and `delete` hold one row at most; the sweep takes
only rows that are free.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

import msgspec

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import Durability, Page
from coatcheck.stores import postgres_walk
from coatcheck.stores.coalesce import Coalescer
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.merging import CUTOFF_MEMORY
from coatcheck.stores.postgres_place import LoopSide, PostgresPlace
from coatcheck.stores.postgres_tables import STORE

if TYPE_CHECKING:
    from coatcheck.stores.postgres_pool import Options

Row = tuple[Any, ...]

_CHUNK = 500
_PATIENCE = 1 / 3  # of the time limit: how long one row may keep the others that are written with it waiting

_CREATE: Final = "SELECT coatcheck_create($1, $2, $3, $4, $5, $6, $7, $8)"
_LOAD: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = $1"
_LOAD_MANY: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = ANY ($1)"
_DELETE: Final = "DELETE FROM coatcheck_record WHERE id = $1 RETURNING subject, version, seen_at, expires_at, body"
_LIST: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE subject = $1"
_REVOKE: Final = "SELECT gone_id, gone_superseded FROM coatcheck_revoke($1, $2, $3)"
_SWEEP: Final = """
    WITH expired AS (
        SELECT id FROM coatcheck_record WHERE due BETWEEN $1 AND $2::bigint >> 18 AND expires_at <= $2
        ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM coatcheck_record USING expired WHERE coatcheck_record.id = expired.id
        RETURNING coatcheck_record.due
    )
    SELECT count(*), max(due) FROM removed
"""
_FORGET: Final = """
    WITH old AS (
        SELECT subject FROM coatcheck_cutoff WHERE before < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM coatcheck_cutoff USING old WHERE coatcheck_cutoff.subject = old.subject
"""


class _Write(NamedTuple):
    """How a row is written: alone, for an array of one would cost half as much again; and together with others."""

    one: LiteralString
    all: LiteralString


_REPLACE: Final = _Write(
    """
    UPDATE coatcheck_record SET
        version = $3,
        seen_at = greatest(seen_at, $4),
        expires_at = CASE WHEN $6 THEN $5 ELSE greatest(expires_at, $5) END,
        superseded = $6,
        body = $7
    WHERE id = $1 AND subject IS NOT DISTINCT FROM $2 AND version = $3 - 1
    """,
    """
    SELECT coatcheck_replace_all(
        $1::bytea[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bytea[], $8
    )
    """,
)
_TOUCH: Final = _Write(
    "SELECT coatcheck_touch($1, $2, $3)", "SELECT coatcheck_touch_all($1::bytea[], $2::bigint[], $3::bigint[], $4)"
)


class PostgresStore(PostgresPlace):
    """A store in a schema of a PostgreSQL database of version 14 or newer, encoded in UTF8.

    Loads that are asked for in one tick of an event loop are one query; so are its touches, and its replacements.
    Where no event loop runs, each thread takes a connection of its own from a pool of as many. A pooler in between
    must give each client a session of its own.

    What an acknowledged write survives is read from the server with each new connection: "failover-safe" where
    `synchronous_standby_names` is set, "power-safe" where not, and "crash-safe" where `fsync` or `full_page_writes`
    is off. `synchronous_commit` is switched on for our sessions, whatever the server's default, but for touches.

    Args:
        url: `postgresql://name:password@host:port/database`, with libpq's parameters (`?sslmode=verify-full`).
            Several hosts may be named: the one that takes writes is used.
        schema: the schema that holds our tables; made if it is not there.
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
        connections: int = 10,
        timeout: timedelta = timedelta(seconds=1),
    ) -> None:
        super().__init__(
            url, component="store", migrations=STORE, schema=schema, connections=connections, timeout=timeout
        )

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        values = _values(record)
        if values is None:
            return False
        answer = await self._ask(_CREATE, (*values, record.created_at))
        return bool(answer.rows[0][0])

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`."""
        octets = id_octets(id)
        if octets is None:
            return None
        side = await self._side()
        if isinstance(side, _Loop):
            row = await side.loads.ask(octets)
        else:
            row = next(iter((await self._ask(_LOAD, (octets,), again=True)).rows), None)
        return _record(id, octets, row) if row is not None else None

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        values = _values(record)
        if values is None:
            return False
        return await self._write(_REPLACE, values)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        octets = id_octets(id)
        if octets is not None:
            await self._write(_TOUCH, (octets, seen_at, expires_at))

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; a damaged one is removed too, but not returned; see `Store.delete`.

        Raises:
            StoreUnavailable: what was removed was damaged, so it cannot be told where its session went.
        """
        octets = id_octets(id)
        if octets is None:
            return None
        rows = (await self._ask(_DELETE, (octets,))).rows
        return _record(id, octets, rows[0]) if rows else None

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`.

        Raises:
            StoreUnavailable: one of them is damaged: a shorter list would not be the truth.
        """
        if not _storable(subject):
            return []
        rows = (await self._ask(_LIST, (subject,), again=True)).rows
        return [_record(base64url.encode(row[5]), row[5], row) for row in rows]

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records, damaged ones too; see `Store.revoke_subject`."""
        if not _storable(subject):
            return []
        kept = id_octets(keep) if keep is not None else None
        rows = (await self._ask(_REVOKE, (subject, before, kept))).rows
        return [base64url.encode(id) for id, superseded in rows if not superseded]

    async def sweep(self, now: int) -> int:
        """Remove expired records, some at a time; rows that others are writing are left; see `Store.sweep`."""
        while (await self._ask(_FORGET, (now - CUTOFF_MEMORY, _CHUNK))).affected == _CHUNK:
            pass
        return await self._sweep(_SWEEP, now, _CHUNK)

    def walk(self) -> AsyncIterator[Page]:
        """Yield every record; see `Walkable.walk`."""
        return postgres_walk.walk(self._ask, _record)

    async def size(self) -> int:
        """Return about how many records there are; see `Walkable.size`."""
        return await postgres_walk.size(self._ask)

    async def _write(self, write: _Write, row: Row) -> bool:
        """Write one row, together with those that are to be written so in this tick."""
        side = await self._side()
        if isinstance(side, _Loop):
            return await side.writes[write].ask(row)
        return (await self._ask(write.one, row)).affected == 1

    def _new_side(self) -> LoopSide:
        return _Loop(self._options, self._tell, self._prepared)


class _Loop(LoopSide):
    """The connections of one event loop, and what its tasks have asked for in this tick."""

    def __init__(
        self, options: Options, told: Callable[[Durability], None], prepared: Callable[[], Future[None]]
    ) -> None:
        super().__init__(options, told, prepared)
        self.loads = Coalescer(self._load_all)
        self.writes: dict[_Write, Coalescer[Row, bool]] = {
            write: Coalescer(partial(self._write_all, write)) for write in (_REPLACE, _TOUCH)
        }
        self._timeout = options.timeout

    async def close(self) -> None:
        """Finish what was asked for, and close the connections."""
        for coalescer in self.writes.values():
            await coalescer.settled()
        await super().close()

    async def _load_all(self, ids: Sequence[bytes]) -> builtins.list[Row | Exception | None]:
        wanted = builtins.list(set(ids))
        one = len(wanted) == 1  # a fifth cheaper than an array of one
        query, value = (_LOAD, wanted[0]) if one else (_LOAD_MANY, wanted)
        found = {row[5]: row for row in (await self.pool.answer(query, (value,), again=True)).rows}
        return [found.get(id) for id in ids]

    async def _write_all(self, write: _Write, rows: Sequence[Row]) -> Sequence[bool | Exception]:
        """Write rows in one transaction; if one of them is why nothing was written, write each by itself."""
        deadline = monotonic() + self._timeout
        if len(rows) == 1:
            return [await self._write_one(write, rows[0], deadline)]
        try:
            return await self._write_together(write, rows, deadline)
        except StoreUnavailable as error:
            if not self.pool.undone(error):
                raise
        return await asyncio.gather(*(self._write_one(write, row, deadline) for row in rows))

    async def _write_one(self, write: _Write, row: Row, deadline: float) -> bool | Exception:
        try:
            return (await self.pool.answer(write.one, row, deadline=deadline)).affected == 1
        except StoreUnavailable as error:
            return error

    async def _write_together(self, write: _Write, rows: Sequence[Row], deadline: float) -> Sequence[bool]:
        places = sorted(range(len(rows)), key=lambda place: rows[place][0])  # by id: see above, "no deadlocks"
        columns = [builtins.list(column) for column in zip(*(rows[place] for place in places), strict=True)]
        patience = f"{max(1, round(self._timeout * 1000 * _PATIENCE))}ms"
        [[done]] = (await self.pool.answer(write.all, (*columns, patience), deadline=deadline)).rows
        return [was_done for _, was_done in sorted(zip(places, done, strict=True))]


def _storable(subject: str | None) -> bool:
    """Say whether PostgreSQL can store a subject: neither a NUL nor a lone surrogate is text to it."""
    if subject is None:
        return True
    try:
        return b"\0" not in subject.encode()
    except UnicodeEncodeError:
        return False


def _values(record: Record) -> tuple[bytes, str | None, int, int, int, bool, bytes] | None:
    octets = id_octets(record.id)
    if octets is None or not _storable(record.subject):
        return None
    bare = msgspec.structs.replace(record, id="", subject=None, version=0, seen_at=0, expires_at=0)
    body = protect(bare.encode(), _context(octets, record.subject))
    superseded = record.successor is not None
    return octets, record.subject, record.version, record.seen_at, record.expires_at, superseded, body


def _record(id: str, octets: bytes, row: tuple[Any, ...]) -> Record:
    subject, version, seen_at, expires_at, body, *_ = row
    bare = Record.decode(unprotect(body, _context(octets, subject)))
    return msgspec.structs.replace(
        bare, id=id, subject=subject, version=version, seen_at=seen_at, expires_at=expires_at
    )


def _context(octets: bytes, subject: str | None) -> bytes:
    return octets if subject is None else octets + b"\1" + subject.encode()
