"""PostgresPlace: what everything of ours in PostgreSQL has in common: it is opened, prepared, asked and closed.

Where an event loop runs, it has connections of its own; where none runs, the threads of the process share some.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString
from weakref import WeakKeyDictionary, ref

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import offload, retrieved, running_loop, to_the_end
from coatcheck.store import Durability
from coatcheck.stores.postgres_statement import Statement
from coatcheck.stores.postgres_tables import Migration

if TYPE_CHECKING:
    from coatcheck.stores.postgres_pool import Options, ThreadPool
    from coatcheck.stores.postgres_wire import Answer

_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_MOST_WAIT = timedelta(minutes=1)
_MOST_CONNECTIONS = 1000
_OPENING = 70.0  # seconds; longer than `postgres_schema` waits for others' migrations and for its own
_LEAST_OPENING = 0.8  # seconds, for who has not opened it and asks; it goes on for those who come later
_TOO_LONG = "PostgreSQL could not be opened in time"


class PostgresPlace:
    """A component's tables in a schema of a PostgreSQL database.

    Args:
        url: `postgresql://name:password@host:port/database`, with libpq's parameters.
        component: whose tables these are.
        migrations: all that were ever published, oldest first; how many have run is the component's version.
        schema: the schema that holds them; made if it is not there.
        connections: at most so many for each process, and for each event loop in it; beyond them, requests wait.
        timeout: how long a call may take, waiting for a connection included.

    Raises:
        ConfigurationError: one of these cannot be, or psycopg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        component: str,
        migrations: tuple[Migration, ...],
        schema: str,
        connections: int,
        timeout: timedelta,
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
        self._component, self._migrations = component, migrations
        self.made_with: dict[str, Any] = {"url": url, "schema": schema, "timeout": timeout}  # for another beside it
        self._durability: Durability = "crash-safe"
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._preparation: Future[None] | None = None
        self._threads: ThreadPool | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopSide] = WeakKeyDictionary()
        self._latest: LoopSide | None = None

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives; until the server was reached, the least."""
        return self._durability

    async def open(self) -> None:
        """Connect, and make or migrate the schema, which may take a minute; calling it again does nothing."""
        await self._side(_OPENING)

    async def close(self) -> None:
        """Close the connections of this event loop, or of this process's threads."""
        loop, self._latest = running_loop(), None
        if loop is not None and (side := self._loops.pop(loop, None)) is not None:
            await side.close()
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            await offload(threads.close)

    async def versions(self) -> dict[str, int]:
        """Return how many migrations of each component have run; it runs none.

        Raises:
            StoreUnavailable: it cannot be told.
        """
        from coatcheck.stores import postgres_schema

        return await offload(lambda: postgres_schema.versions(self._options))

    @to_the_end
    async def _ask(self, query: LiteralString, values: Sequence[Any], *, again: bool = False) -> Answer:
        side = await self._side()
        if isinstance(side, LoopSide):
            return await side.pool.answer(query, values, again=again)
        return side.answer(query, values, again=again)

    async def _sweep(self, query: LiteralString, now: int, chunk: int) -> int:
        """Remove what has expired, so many rows at a time, and return how many in all.

        Args:
            query: removes rows in the order of an index. Its arguments are where the chunk before has ended, for what
                that one removed is not passed again; the time; and how many at most. It returns how many, and where
                it has ended.
            now: milliseconds since the epoch.
            chunk: how many rows at once.
        """
        removed, since = 0, 0
        while True:
            count, last = (await self._ask(query, (since, now, chunk))).rows[0]
            removed += int(count)
            if count < chunk:
                return removed
            since = int(last)

    async def _side(self, patience: float | None = None) -> LoopSide | ThreadPool:
        """Return the connections that fit the caller: those of its event loop, or those for threads.

        They are opened if need be, in `patience` seconds, or by default in as many as an answer may take, if not less.
        """
        patience = max(_LEAST_OPENING, self._options.timeout) if patience is None else patience
        if self._pid != os.getpid():
            self._forsake()
        loop = running_loop()
        if loop is None:
            return self._threads or self._open_threads(patience)
        side = self._loops.get(loop)
        if side is None:
            side = self._loops[loop] = self._new_side()
        if not side.ready:
            await side.open(patience)
        self._latest = side
        return side

    def _open_side(self) -> LoopSide | None:
        """Return this event loop's connections, if it was the last one to use them: nearly every call finds them."""
        side = self._latest
        if side is None or self._pid != os.getpid() or side.loop() is not running_loop():
            return None
        return side

    def _open_threads(self, patience: float) -> ThreadPool:
        from coatcheck.stores.postgres_pool import ThreadPool

        try:
            self._prepared().result(patience)
        except TimeoutError:
            raise StoreUnavailable(_TOO_LONG) from None
        with self._lock:
            if self._threads is None:
                pool = ThreadPool(self._options, self._tell)
                pool.open()
                self._threads = pool
            return self._threads

    def _prepared(self) -> Future[None]:
        """Have the schema made or migrated, once in each process; all who wait for an attempt share its outcome."""
        with self._lock:
            attempt = self._preparation
            if attempt is None or (attempt.done() and attempt.exception() is not None):
                self._preparation = attempt = Future[None]()
                attempt.set_running_or_notify_cancel()  # no loop that is shut down cancels it for the others
                # A thread of its own: whoever ends the process need not wait for a server that does not answer.
                threading.Thread(target=self._prepare, args=(attempt,), name="coatcheck-postgres", daemon=True).start()
            return attempt

    def _prepare(self, attempt: Future[None]) -> None:
        from coatcheck.stores import postgres_schema

        try:
            self._tell(postgres_schema.prepare(self._options, self._component, self._migrations))
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            attempt.set_exception(error)
        else:
            attempt.set_result(None)

    def _tell(self, durability: Durability) -> None:
        """Take over what a new connection says of its server."""
        self._durability = durability

    def _forsake(self) -> None:
        """Forget a parent's connections without closing them: closing would end the parent's sessions."""
        _inherited.append((self._threads, [*self._loops.values()]))
        self._begin()

    def _new_side(self) -> LoopSide:
        return LoopSide(self._options, self._tell, self._prepared)


class LoopSide:
    """The connections of one event loop.

    Args:
        options: how to connect.
        told: see `LoopPool`.
        prepared: has the schema made or migrated.
        statements: what can be asked at once.
    """

    def __init__(
        self,
        options: Options,
        told: Callable[[Durability], None],
        prepared: Callable[[], Future[None]],
        statements: Sequence[Statement] = (),
    ) -> None:
        from coatcheck.stores.postgres_loop import LoopPool

        self.ready = False
        self.loop = ref(asyncio.get_running_loop())
        self.pool = LoopPool(options, told, statements)
        self._prepared = prepared
        self._opening: asyncio.Task[None] | None = None

    async def open(self, patience: float) -> None:
        """Have the schema prepared, and begin to connect; all who come meanwhile share the outcome.

        Raises:
            StoreUnavailable: it cannot be, or takes longer than `patience`, in seconds.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(retrieved)
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._opening)
        except TimeoutError:
            raise StoreUnavailable(_TOO_LONG) from None

    async def close(self) -> None:
        """Close the connections."""
        await self.pool.close()

    async def _open(self) -> None:
        try:
            await asyncio.wrap_future(self._prepared())
            await self.pool.open()
            self.ready = True
        finally:
            self._opening = None


_inherited: list[object] = []
