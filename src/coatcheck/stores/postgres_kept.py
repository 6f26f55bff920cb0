"""Kept: a connection that an event loop keeps out of its pool for a while, to ask it the same few things at once.

psycopg can ask anything, and takes eighty microseconds for it: it takes a connection out of its pool, makes a cursor,
finds out how each value is written, and begins to watch the socket. What is asked all the time is prepared on each
connection, its values are written by us, and the socket is watched for as long as the connection is kept. What is left
is libpq, by the door to it that psycopg offers, and a callback.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import psycopg
from psycopg import abc, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGresult

from coatcheck.stores.postgres_statement import Statement
from coatcheck.stores.postgres_wire import Answer, AsyncConnection, TooLate, judged
from coatcheck.stores.time_limit import Step, TimeLimit

Answered = Callable[[Answer | Exception], None]
"""Is called with what a statement returned, or with why it did not."""

_DONE: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class Kept:
    """A connection that nobody else uses meanwhile. One that has shown an error is closed (P4).

    Args:
        connection: is idle, and has the statements prepared.
        limit: how long an answer may take.
        free: is called when it has answered, or is closed.
    """

    def __init__(self, connection: AsyncConnection, limit: TimeLimit, free: Callable[[Kept], None]) -> None:
        self.connection, self.since = connection, monotonic()
        self._libpq = connection.pgconn
        self._limit, self._free = limit, free
        self._loop, self._socket = asyncio.get_running_loop(), connection.fileno()
        self._loaders: dict[str, abc.Transformer] = {}
        self._asked: tuple[Statement, Answered, Step] | None = None
        self._results: list[PGresult] = []
        self._unasked = select.poll()
        self._unasked.register(self._socket, select.POLLIN)
        self._loop.add_reader(self._socket, self._read)

    @property
    def fresh(self) -> bool:
        """Whether it can be asked: it owes nobody an answer, and nothing came unasked, its end included."""
        return self._asked is None and not self._unasked.poll(0)

    def ask(self, statement: Statement, values: Sequence[bytes | None], answered: Answered) -> None:
        """Run a statement, and have `answered` called in time."""
        step = self._limit.begin(lambda: self._fail(TooLate("no answer in time")))
        self._asked = statement, answered, step
        binary = pq.Format.BINARY
        try:
            self._libpq.send_query_prepared(statement.name.encode(), values, [binary] * len(values), binary)
            if self._libpq.flush():
                self._loop.add_writer(self._socket, self._write)
        except Exception as error:  # noqa: BLE001 (it is told to whoever waits)
            self._fail(error)

    def leave(self) -> AsyncConnection:
        """Stop watching it, and return it."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        return self.connection

    def _write(self) -> None:
        """Send more, now that there is room for it."""
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            answer = self._received()
        except Exception as error:  # noqa: BLE001 (it is told to whoever waits)
            self._fail(error)
            return
        if answer is not None:
            self._tell(answer)

    def _received(self) -> Answer | None:
        """Return what was asked for, if all of it has come."""
        self._libpq.consume_input()
        if self._asked is None:
            raise psycopg.OperationalError("the server spoke unasked")
        while not self._libpq.is_busy():
            result = self._libpq.get_result()
            if result is not None:
                self._results.append(result)
                continue
            [result], self._results = self._results, []
            if result.status not in _DONE:
                raise error_from_result(result)
            statement, *_ = self._asked
            return judged(self.connection, Answer(self._rows(statement, result), result.command_tuples or 0))
        return None

    def _rows(self, statement: Statement, result: PGresult) -> list[tuple[object, ...]]:
        loader = self._loaders.get(statement.name)
        if loader is None:
            loader = self._loaders[statement.name] = Transformer(self.connection)
            loader.set_pgresult(result)
        else:
            loader.set_pgresult(result, set_loaders=False)
        return loader.load_rows(0, result.ntuples, tuple)

    def _fail(self, error: Exception) -> None:
        self.leave()
        self._libpq.finish()
        self._tell(error)

    def _tell(self, answer: Answer | Exception) -> None:
        asked, self._asked = self._asked, None
        self._free(self)
        if asked is not None:
            _, answered, step = asked
            self._limit.finish(step)
            answered(answer)
