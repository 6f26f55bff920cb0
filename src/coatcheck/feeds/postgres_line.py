"""Line: a connection to PostgreSQL that one follower has for itself, and on which it is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncRawCursor, sql

from coatcheck.stores.postgres_pool import CONNECT, SET_UP, Options, judge, settings, unavailable
from coatcheck.stores.postgres_wire import AsyncConnection


class Line:
    """A connection that listens to the channel of its schema.

    Args:
        options: how to connect, and how long an answer may take.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connection: AsyncConnection | None = None

    async def open(self) -> None:
        """Connect, and listen.

        Raises:
            StoreUnavailable: the server cannot be reached.
        """
        try:
            async with asyncio.timeout(CONNECT + self._options.timeout):
                self._connection = connection = await AsyncConnection.connect(
                    self._options.conninfo, autocommit=True, cursor_factory=AsyncRawCursor
                )
                connection.deadline = monotonic() + self._options.timeout
                judge(await (await connection.execute(SET_UP, settings(self._options))).fetchone())
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._options.schema)))
        except TimeoutError as error:
            raise unavailable(psycopg.OperationalError()) from error
        except psycopg.Error as error:
            raise unavailable(error) from error

    async def ask(self, query: LiteralString, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds.

        Raises:
            StoreUnavailable: there is no answer.
        """
        connection = self._open()
        connection.deadline = monotonic() + self._options.timeout
        try:
            return await (await connection.execute(query, values, prepare=True, binary=True)).fetchall()
        except psycopg.Error as error:
            raise unavailable(error) from error

    async def wait(self, seconds: float) -> None:
        """Return when something was published, or after so many seconds.

        Raises:
            StoreUnavailable: the connection is lost.
        """
        connection = self._open()
        connection.deadline = monotonic() + seconds + self._options.timeout
        try:
            async for _ in connection.notifies(timeout=seconds, stop_after=1):
                pass
        except psycopg.Error as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    def _open(self) -> AsyncConnection:
        assert self._connection is not None, "open() comes first"  # noqa: S101 (no caller's mistake: our own)
        return self._connection
