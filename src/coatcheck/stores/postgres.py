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

*No deadlocks.* Whoever waits for an advisory lock holds nothing. `create`, and whoever writes by id, holds one row at
most; the sweep takes only rows that are free; two `revoke_subject` that could want the same rows exclude each other.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import re
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, LiteralString
from weakref import WeakKeyDictionary

import msgspec

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import offload, to_the_end
from coatcheck.store import Durability
from coatcheck.stores.coalesce import Coalescer
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.merging import CUTOFF_MEMORY

if TYPE_CHECKING:
    from coatcheck.stores.postgres_pool import Answer, Options, ThreadPool

_CHUNK = 500
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_MOST_WAIT = timedelta(minutes=1)
_MOST_CONNECTIONS = 1000

_CREATE: Final = "SELECT coatcheck_create($1, $2, $3, $4, $5, $6, $7, $8)"
_LOAD: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = $1"
_LOAD_MANY: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = ANY ($1)"
_REPLACE: Final = """
    UPDATE coatcheck_record SET
        version = $3,
        seen_at = greatest(seen_at, $4),
        expires_at = CASE WHEN $6 THEN $5 ELSE greatest(expires_at, $5) END,
        superseded = $6,
        body = $7
    WHERE id = $1 AND subject IS NOT DISTINCT FROM $2 AND version = $3 - 1
"""
_TOUCH: Final = "SELECT coatcheck_touch($1, $2, $3)"
_DELETE: Final = "DELETE FROM coatcheck_record WHERE id = $1 RETURNING subject, version, seen_at, expires_at, body"
_LIST: Final = "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE subject = $1"
_REVOKE: Final = "SELECT gone_id, gone_superseded FROM coatcheck_revoke($1, $2, $3)"
# In the order of the index and from where the chunk before has ended: what that one removed is not passed again.
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


class PostgresStore:
    """A store in a schema of a PostgreSQL database of version 14 or newer, encoded in UTF8.

    Loads that are asked for in one tick of an event loop are one query. Where no event loop runs, each thread takes
    a connection of its own from a pool of as many. A pooler in between must give each client a session of its own.

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
        try:
            from coatcheck.stores.postgres_pool import Options, read_url
        except ImportError as error:
            words = 'PostgreSQL needs psycopg and its pool: pip install "coatcheck[postgres]"'
            raise ConfigurationError(words) from error
        if not _SCHEMA.fullmatch(schema):
            raise ConfigurationError("a schema is called by small letters, digits and _, at most 63")
        if not 1 <= connections <= _MOST_CONNECTIONS:
            raise ConfigurationError(f"connections are at least 1 and at most {_MOST_CONNECTIONS}")
        if not timedelta(milliseconds=10) <= timeout <= _MOST_WAIT:
            raise ConfigurationError("timeout is at least 10 ms and at most a minute")
        self._options = Options(read_url(url), schema, connections, timeout.total_seconds())
        self._durability: Durability = "crash-safe"
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._prepared = False
        self._failures = 0
        self._threads: ThreadPool | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives; until the server was reached, the least."""
        return self._durability

    async def open(self) -> None:
        """Connect, and make or migrate the schema; see `Store.open`."""
        await self._side()

    async def close(self) -> None:
        """Close the connections of this event loop, or of this process's threads; see `Store.close`."""
        loop = _running_loop()
        if loop is not None and (side := self._loops.pop(loop, None)) is not None:
            await side.pool.close()
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            await offload(threads.close)

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
            row = await side.loads.load(octets)
        else:
            row = next(iter(side.answer(_LOAD, (octets,), again=True).rows), None)
        return _record(id, octets, row) if row is not None else None

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        values = _values(record)
        if values is None:
            return False
        return (await self._ask(_REPLACE, values)).affected == 1

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        octets = id_octets(id)
        if octets is not None:
            await self._ask(_TOUCH, (octets, seen_at, expires_at))

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
        removed, due = 0, 0
        while True:
            chunk, last = (await self._ask(_SWEEP, (due, now, _CHUNK))).rows[0]
            removed += int(chunk)
            if chunk < _CHUNK:
                return removed
            due = int(last)

    @to_the_end
    async def _ask(self, query: LiteralString, values: Sequence[Any], *, again: bool = False) -> Answer:
        side = await self._side()
        if isinstance(side, _Loop):
            return await side.pool.answer(query, values, again=again)
        return side.answer(query, values, again=again)

    async def _side(self) -> _Loop | ThreadPool:
        """Return the connections that fit the caller: those of its event loop, or those for threads."""
        if self._pid != os.getpid():
            self._forsake()
        loop = _running_loop()
        if loop is None:
            return self._threads or self._open_threads()
        side = self._loops.get(loop)
        if side is None:
            side = self._loops[loop] = _Loop(self._options, self._tell, self._prepare)
        if not side.ready:
            await side.open()
        return side

    def _open_threads(self) -> ThreadPool:
        from coatcheck.stores.postgres_pool import ThreadPool

        self._prepare()
        with self._lock:
            if self._threads is None:
                pool = ThreadPool(self._options, self._tell)
                pool.open()
                self._threads = pool
            return self._threads

    def _prepare(self) -> None:
        """Make or migrate the schema, once in each process; threads that wait for an attempt share its failure."""
        from coatcheck.stores import postgres_schema

        asked_after = self._failures
        with self._lock:
            if self._prepared:
                return
            if self._failures != asked_after:
                raise StoreUnavailable("PostgreSQL could not be opened")
            try:
                self._tell(postgres_schema.prepare(self._options, "store", postgres_schema.STORE))
            except StoreUnavailable:
                self._failures += 1
                raise
            self._prepared = True

    def _tell(self, durability: Durability) -> None:
        """Take over what a new connection says of its server."""
        self._durability = durability

    def _forsake(self) -> None:
        """Forget a parent's connections without closing them: closing would end the parent's sessions."""
        _inherited.append((self._threads, [*self._loops.values()]))
        self._begin()


class _Loop:
    """The connections of one event loop, and the loads that its tasks have asked for."""

    def __init__(self, options: Options, told: Callable[[Durability], None], prepare: Callable[[], None]) -> None:
        from coatcheck.stores.postgres_pool import LoopPool

        self.ready = False
        self.pool = LoopPool(options, told)
        self.loads = Coalescer(self._fetch)
        self._prepare = prepare
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Prepare the schema in a thread, and begin to connect; all who come meanwhile share the outcome."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(self._prepare)
            await self.pool.open()
            self.ready = True
        finally:
            self._opening = None

    async def _fetch(self, ids: Sequence[bytes]) -> dict[bytes, tuple[Any, ...]]:
        one = len(ids) == 1  # a fifth cheaper than an array of one
        query, value = (_LOAD, ids[0]) if one else (_LOAD_MANY, builtins.list(ids))
        return {row[5]: row for row in (await self.pool.answer(query, (value,), again=True)).rows}


_inherited: list[object] = []


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
