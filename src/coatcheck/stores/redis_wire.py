"""Wires: connections to Redis, for coroutines on an event loop and for coroutines that `coatcheck.run.run` drives.

redis-py gives the connections: sockets, TLS, signing in. Its clients and pools are not used: they cost 60 to 75
microseconds a command, retry what must not be done twice, and raise where a caller should wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis_resp import Answered, Replies, pack
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.time_limit import TimeLimit

FAILURES = (RedisError, OSError, EOFError)
Reply = Any
"""What the server said, or the ResponseError that it is."""


class Wire(Protocol):
    """One connection."""

    async def fresh(self) -> bool:
        """Say whether it can be used again: still open, and nothing left to be read."""
        ...

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands, and return what each was answered."""
        ...

    def ask(self, commands: bytes, count: int, answered: Answered) -> bool:
        """Send commands now, if nobody has to wait for that, and say whether they were sent.

        Args:
            commands: as `pack` returns them.
            count: how many they are, at least one.
            answered: is called in time with what each was answered, or with why they were not.
        """
        ...

    async def drop(self) -> None:
        """Close it, whatever was under way."""
        ...


class LoopWire:
    """A connection for an event loop. redis-py opens it and signs in; then what comes is read here.

    Args:
        connection: redis-py's, not opened yet.
        limit: how long `ask` waits for its answers.
    """

    def __init__(self, connection: Any, limit: TimeLimit) -> None:
        self._connection, self._limit = connection, limit
        self._replies: Replies | None = None

    async def fresh(self) -> bool:
        """See `Wire`."""
        return self._replies is not None and self._replies.fresh

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Wire`. Who stops waiting takes the connection along (P4)."""
        replies = self._replies
        if replies is None:
            replies = self._replies = await self._opened()
        answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        replies.ask(pack(commands), len(commands), partial(_settle, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            replies.end(RedisConnectionError("nobody waits for the answer any more"))
            raise

    def ask(self, commands: bytes, count: int, answered: Answered) -> bool:
        """See `Wire`."""
        replies = self._replies
        if replies is None or not replies.fresh:
            return False
        step = self._limit.begin(lambda: replies.end(late(self._limit.seconds)))

        def in_time(found: list[Reply] | Exception) -> None:
            self._limit.finish(step)
            answered(found)

        replies.ask(commands, count, in_time)
        return True

    async def _opened(self) -> Replies:
        await self._connection.connect()
        writer = self._connection._writer  # noqa: SLF001  there is no public way to its transport
        replies = Replies(writer.transport)
        if await self._connection.can_read():  # by its own reader, to which nothing comes any more
            raise RedisConnectionError("the server said more than it was asked, or closed the connection")
        return replies

    async def drop(self) -> None:
        """See `Wire`."""
        with suppress(*FAILURES):
            await self._connection.disconnect(nowait=True)


class Deadline(threading.local):
    """How long the call that a thread makes may take: until then, and no step of it longer than `most` seconds."""

    def __init__(self, most: float) -> None:
        self.most, self.until = most, inf

    def left(self) -> float:
        """Return how many seconds are left; 0 or less if none are."""
        return min(self.until - monotonic(), self.most)


class ThreadWire:
    """A connection that blocks, until the deadline at most."""

    def __init__(self, connection: Any, deadline: Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    async def fresh(self) -> bool:
        """See `Wire`."""
        try:
            return not self._connection.can_read(timeout=0)
        except FAILURES:
            return False

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Wire`."""
        connection, replies = self._connection, list[Reply]()
        self._limit()
        connection.send_packed_command([pack(commands)], check_health=False)
        for _ in commands:
            self._limit()
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    def ask(self, commands: bytes, count: int, answered: Answered) -> bool:  # noqa: ARG002
        """See `Wire`: here everybody has to wait."""
        return False

    def _limit(self) -> None:
        left, socket = self._deadline.left(), self._connection._sock  # noqa: SLF001  there is no public way to limit it
        if left <= 0:
            raise TimeoutError
        if socket is None:  # it is about to connect
            self._connection.socket_connect_timeout = self._connection.socket_timeout = left
        else:
            socket.settimeout(left)

    async def drop(self) -> None:
        """See `Wire`."""
        with suppress(*FAILURES):
            self._connection.disconnect()


def late(seconds: float) -> StoreUnavailable:
    """Return what is raised when a server has not answered in time."""
    return StoreUnavailable(f"the Redis server did not answer within {seconds:g} s")


def _settle(answer: asyncio.Future[list[Reply]], found: list[Reply] | Exception) -> None:
    if answer.done():  # who waited for it was cancelled
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)
