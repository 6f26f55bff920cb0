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
from typing import TYPE_CHECKING, Any, Final

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import Durability, Page
from coatcheck.stores import postgres_walk
from coatcheck.stores.coalesce import Asked, Coalescer
from coatcheck.stores.encoding import id_octets
from coatcheck.stores.merging import CUTOFF_MEMORY
from coatcheck.stores.postgres_place import LoopSide, PostgresPlace
from coatcheck.stores.postgres_rows import (
    AT_ONCE,
    LOAD,
    LOAD_MANY,
    REPLACE,
    TOUCH,
    Row,
    Write,
    record_of,
    row_of,
    storable,
)
from coatcheck.stores.postgres_statement import Statement
from coatcheck.stores.postgres_tables import STORE

if TYPE_CHECKING:
    from coatcheck.stores.postgres_pool import Options
    from coatcheck.stores.postgres_wire import Answer

_CHUNK = 500
_PATIENCE = 1 / 3  # of the time limit: how long one row may keep the others that are written with it waiting

_CREATE: Final = "SELECT coatcheck_create($1, $2, $3, $4, $5, $6, $7, $8)"
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
        values = row_of(record)
        if values is None:
            return False
        answer = await self._ask(_CREATE, (*values, record.created_at))
        return bool(answer.rows[0][0])

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`."""
        octets = id_octets(id)
        if octets is None:
            return None
        side = self._open_side() or await self._side()
        if isinstance(side, _Loop):
            row = await side.loads.ask(octets)
        else:
            row = next(iter((await self._ask(LOAD.query, (octets,), again=True)).rows), None)
        return record_of(id, octets, row) if row is not None else None

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        row = row_of(record)
        return row is not None and await self._write(REPLACE, row)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        octets = id_octets(id)
        if octets is not None:
            await self._write(TOUCH, (octets, seen_at, expires_at))

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; a damaged one is removed too, but not returned; see `Store.delete`.

        Raises:
            StoreUnavailable: what was removed was damaged, so it cannot be told where its session went.
        """
        octets = id_octets(id)
        if octets is None:
            return None
        rows = (await self._ask(_DELETE, (octets,))).rows
        return record_of(id, octets, rows[0]) if rows else None

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`.

        Raises:
            StoreUnavailable: one of them is damaged: a shorter list would not be the truth.
        """
        if not storable(subject):
            return []
        rows = (await self._ask(_LIST, (subject,), again=True)).rows
        return [record_of(base64url.encode(row[5]), row[5], row) for row in rows]

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records, damaged ones too; see `Store.revoke_subject`."""
        if not storable(subject):
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
        return postgres_walk.walk(self._ask, record_of)

    async def size(self) -> int:
        """Return about how many records there are; see `Walkable.size`."""
        return await postgres_walk.size(self._ask)

    async def _write(self, write: Write, row: Row) -> bool:
        """Write one row, together with those that are to be written so in this tick."""
        side = self._open_side() or await self._side()
        if isinstance(side, _Loop):
            return await side.writes[write].ask(row)
        return (await self._ask(write.one.query, row)).affected == 1

    def _new_side(self) -> LoopSide:
        return _Loop(self._options, self._tell, self._prepared)


class _Loop(LoopSide):
    """The connections of one event loop, and what its tasks have asked for in this tick."""

    def __init__(
        self, options: Options, told: Callable[[Durability], None], prepared: Callable[[], Future[None]]
    ) -> None:
        super().__init__(options, told, prepared, AT_ONCE)
        self.loads = Coalescer(self._load)
        self.writes = {write: Coalescer[Row, bool](partial(self._write, write)) for write in (REPLACE, TOUCH)}
        self._timeout = options.timeout

    async def close(self) -> None:
        """Finish what was asked for, and close the connections."""
        for coalescer in self.writes.values():
            await coalescer.settled()
        await super().close()

    def _load(self, asked: Asked[bytes, Row | None]) -> None:
        deadline, query = monotonic() + self._timeout, _query(asked.questions)

        def answered(answer: Answer | Exception) -> None:
            if not isinstance(answer, Exception):
                asked.answer_by(lambda: _in_order(asked.questions, answer))
            elif monotonic() < deadline:
                asked.answer_later(self._load_all(asked.questions, deadline))
            else:
                asked.fail(self.pool.as_unavailable(answer))

        if not self.pool.ask(*query, answered):
            asked.answer_later(self._load_all(asked.questions, deadline))

    async def _load_all(self, ids: Sequence[bytes], deadline: float) -> builtins.list[Row | Exception | None]:
        statement, values = _query(ids)
        return _in_order(ids, await self.pool.answer(statement.query, values, again=True, deadline=deadline))

    def _write(self, write: Write, asked: Asked[Row, bool]) -> None:
        rows, deadline = asked.questions, monotonic() + self._timeout

        def answered(answer: Answer | Exception) -> None:
            if not isinstance(answer, Exception):
                asked.answer_by(lambda: done(answer))
            elif len(rows) > 1 and self.pool.undone(self.pool.as_unavailable(answer)):
                asked.answer_later(self._write_each(write, rows, deadline))
            else:
                asked.fail(self.pool.as_unavailable(answer))

        statement, values, done = self._together(write, rows)
        if not self.pool.ask(statement, values, answered):
            asked.answer_later(self._write_all(write, rows, deadline))

    async def _write_all(self, write: Write, rows: Sequence[Row], deadline: float) -> Sequence[bool | Exception]:
        """Write rows in one transaction; if one of them is why nothing was written, write each by itself."""
        statement, values, done = self._together(write, rows)
        try:
            return done(await self.pool.answer(statement.query, values, deadline=deadline))
        except StoreUnavailable as error:
            if len(rows) == 1 or not self.pool.undone(error):
                raise
        return await self._write_each(write, rows, deadline)

    async def _write_each(self, write: Write, rows: Sequence[Row], deadline: float) -> Sequence[bool | Exception]:
        return await asyncio.gather(*(self._write_one(write, row, deadline) for row in rows))

    async def _write_one(self, write: Write, row: Row, deadline: float) -> bool | Exception:
        try:
            return (await self.pool.answer(write.one.query, row, deadline=deadline)).affected == 1
        except StoreUnavailable as error:
            return error

    def _together(
        self, write: Write, rows: Sequence[Row]
    ) -> tuple[Statement, Sequence[Any], Callable[[Answer], builtins.list[bool]]]:
        """Return what writes rows, its values, and what finds out of its answer which were written."""
        if len(rows) == 1:
            return write.one, rows[0], lambda answer: [answer.affected == 1]
        places = sorted(range(len(rows)), key=lambda place: rows[place][0])  # by id: see above, "no deadlocks"
        columns = zip(*[rows[place] for place in places], strict=True)
        patience = f"{max(1, round(self._timeout * 1000 * _PATIENCE))}ms"

        def done(answer: Answer) -> builtins.list[bool]:
            [[were_done]] = answer.rows
            return [was_done for _, was_done in sorted(zip(places, were_done, strict=True))]

        return write.all, [*map(builtins.list, columns), patience], done


def _query(ids: Sequence[bytes]) -> tuple[Statement, Sequence[Any]]:
    """Return what finds records, and its values."""
    wanted = list(dict.fromkeys(ids))
    return (LOAD, wanted) if len(wanted) == 1 else (LOAD_MANY, [wanted])  # an array of one costs the server more


def _in_order(ids: Sequence[bytes], answer: Answer) -> list[Row | Exception | None]:
    found = {row[5]: row for row in answer.rows}
    return [found.get(id) for id in ids]
