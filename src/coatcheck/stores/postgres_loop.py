"""LoopPool: the connections of one event loop to PostgreSQL; see `coatcheck.stores.postgres_pool`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncRawCursor
from psycopg_pool import AsyncConnectionPool
from psycopg_pool.pool_async import StopWorker

from coatcheck.errors import StoreUnavailable
from coatcheck.store import Durability
from coatcheck.stores.postgres_kept import Answered, Kept
from coatcheck.stores.postgres_pool import (
    CONNECT,
    SET_UP,
    Options,
    is_lost,
    is_quiet,
    judge,
    settings,
    shape,
    unavailable,
)
from coatcheck.stores.postgres_statement import Statement
from coatcheck.stores.postgres_wire import Answer, AsyncConnection, judged
from coatcheck.stores.time_limit import TimeLimit

# Data that cannot be taken, a constraint, a deadlock, a lock that was waited for too long ("PostgreSQL Error Codes").
_OF_ONE_ROW: Final = ("22", "23", "40P01", "55P03")
_MOST_KEPT: Final = 3  # what is loaded, replaced and touched in one tick
_LONGEST: Final = 60.0  # seconds that one is kept; then the pool renews it, or lets it go


class _AsyncPool(AsyncConnectionPool[AsyncConnection]):
    @classmethod
    async def worker(cls, q: Any) -> None:
        """Do the pool's errands; end when the loop is shut down.

        psycopg's own takes a cancellation while it connects for a failure, and goes on: a program that ends during an
        outage, and does not close the store, would never end.
        """
        me = asyncio.current_task()
        while not isinstance(errand := await q.get(), StopWorker):
            with contextlib.suppress(Exception):
                await errand.run()
            if me is not None and me.cancelling():
                raise asyncio.CancelledError


class LoopPool:
    """Connections for one event loop; otherwise as ThreadPool.

    Whoever asks sees to it that the asking task is not cancelled with the request: see `coatcheck.run.to_the_end`.

    Args:
        options: how to connect.
        told: is called with what each new connection says of its server's durability.
        statements: what can be asked at once.
    """

    def __init__(
        self, options: Options, told: Callable[[Durability], None], statements: Sequence[Statement] = ()
    ) -> None:
        self._options, self._told = options, told
        self._preparation = "; ".join([statement.preparation for statement in statements])
        kind = {"autocommit": True, "cursor_factory": AsyncRawCursor}
        self._pool = _AsyncPool(
            options.conninfo, connection_class=AsyncConnection, kwargs=kind, configure=self._set_up, **shape(options)
        )
        self._limit = TimeLimit(options.timeout)
        self._idle: list[Kept] = []
        self._kept = self._waiting = 0  # how many connections are kept, and how many wait for one of the pool
        self._closed = False
        self._returning: set[asyncio.Task[None]] = set()  # a loop alone would not keep them

    async def open(self) -> None:
        """Begin to connect; calling it again does nothing."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections, and end the pool's tasks."""
        self._closed = True
        while self._idle:
            self._give_back(self._idle.pop())
        while self._returning:
            await asyncio.wait(self._returning)
        await self._pool.close()

    def ask(self, statement: Statement, values: Sequence[Any], answered: Answered) -> bool:
        """Run one of the statements without a task, over a connection that is kept, and say whether that could be.

        Args:
            statement: one of those.
            values: see `answer`.
            answered: is called in time.
        """
        try:
            packed = statement.pack(values)
        except ValueError:
            return False
        kept = self._taken()
        if kept is None:
            return False
        kept.ask(statement, packed, answered)
        return True

    async def answer(
        self, query: LiteralString, values: Sequence[Any], *, again: bool = False, deadline: float | None = None
    ) -> Answer:
        """Run one statement; see `ThreadPool.answer`.

        Args:
            query: see there.
            values: see there.
            again: see there.
            deadline: until when it is waited for, by the monotonic clock; by default as long as the options say.

        Raises:
            StoreUnavailable: see there.
        """
        if deadline is None:
            deadline = monotonic() + self._options.timeout
        try:
            while True:
                connection = await self._take(deadline)
                try:
                    return await self._ask(connection, query, values)
                except psycopg.OperationalError as error:
                    if not again or not is_lost(error):
                        raise
        except psycopg.Error as error:
            raise unavailable(error) from error

    @staticmethod
    def as_unavailable(error: Exception) -> StoreUnavailable:
        """Return what is raised in place of what `ask` has told."""
        if isinstance(error, psycopg.Error):
            raised = unavailable(error)
        else:
            raised = StoreUnavailable("PostgreSQL's answer cannot be read")
        raised.__cause__ = error
        return raised

    @staticmethod
    def undone(error: StoreUnavailable) -> bool:
        """Say whether nothing was done because of one of the rows: its data, or somebody who holds it."""
        cause = error.__cause__
        state = cause.sqlstate if isinstance(cause, psycopg.Error) else None
        return isinstance(cause, psycopg.DataError) or (state is not None and state.startswith(_OF_ONE_ROW))

    async def _take(self, deadline: float) -> AsyncConnection:
        kept = self._taken()
        connection = self._left(kept) if kept is not None else await self._pooled(deadline)
        connection.deadline = deadline
        return connection

    async def _pooled(self, deadline: float) -> AsyncConnection:
        self._waiting += 1
        try:
            while True:
                connection = await self._pool.getconn(timeout=deadline - monotonic())
                if is_quiet(connection):
                    return connection
                await connection.close()
                await self._pool.putconn(connection)
        finally:
            self._waiting -= 1

    async def _ask(self, connection: AsyncConnection, query: LiteralString, values: Sequence[Any]) -> Answer:
        try:
            cursor = await connection.execute(query, values, prepare=True, binary=True)
            rows = await cursor.fetchall() if cursor.rownumber is not None else []
            return judged(connection, Answer(rows, cursor.rowcount))
        except BaseException:
            await connection.close()
            raise
        finally:
            if not self._keep(connection):
                await self._pool.putconn(connection)

    # -- those that are kept

    def _keep(self, connection: AsyncConnection) -> bool:
        """Keep a connection, to ask it at once, unless somebody waits for one, and say whether it is kept."""
        if not self._preparation or self._closed or self._waiting or self._kept >= _MOST_KEPT:
            return False
        if connection.closed or connection.info.encoding != "utf-8":  # the values are written in that
            return False
        self._kept += 1
        self._idle.append(Kept(connection, self._limit, self._free))
        return True

    def _taken(self) -> Kept | None:
        """Take one that can be asked."""
        while self._idle:
            kept = self._idle.pop()
            if kept.fresh:
                return kept  # another one finds out itself that it is not, and is closed
        return None

    def _free(self, kept: Kept) -> None:
        """Go on keeping it, unless somebody waits for one, or it is closed, or has been kept for long."""
        if kept in self._idle:
            self._idle.remove(kept)
        if self._closed or kept.connection.closed or self._waiting or monotonic() > kept.since + _LONGEST:
            self._give_back(kept)
        else:
            self._idle.append(kept)

    def _give_back(self, kept: Kept) -> None:
        task = asyncio.ensure_future(self._pool.putconn(self._left(kept)))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    def _left(self, kept: Kept) -> AsyncConnection:
        self._kept -= 1
        return kept.leave()

    async def _set_up(self, connection: AsyncConnection) -> None:
        connection.deadline = monotonic() + CONNECT
        try:
            cursor = await connection.execute(SET_UP, settings(self._options))
            self._told(judge(await cursor.fetchone()))
            if self._preparation:
                await connection.execute(self._preparation.encode())
        except BaseException:
            await connection.close()
            raise
        connection.add_notice_handler(connection.hear)
